"""What was asked and what came out: experiment configurations, stored results and the log."""
