"""Experiment configurations, found by `experiment=NAME`."""
