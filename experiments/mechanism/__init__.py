"""What drives a run: scores given right and wrong, the drift, and how they change with the pass rate."""
