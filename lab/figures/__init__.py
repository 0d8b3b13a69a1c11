"""Figures of one run or of a few side by side; each function takes numbers and returns a figure and its data."""
