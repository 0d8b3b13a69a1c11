"""What is done with a run once it is trained, as part of the same command: measured, extrapolated, reported.

Each follow-up is a file here; its work is cut into pieces that are stored as they are finished, so that the run can be
stopped between any two of them and goes on where it was.
"""
