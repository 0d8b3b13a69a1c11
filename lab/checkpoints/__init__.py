"""Measuring every weight of any series of checkpoints.

The numerics are in `lab.linearity.streaming`, the readers of files in `lab.trajectory.readers`.
"""
