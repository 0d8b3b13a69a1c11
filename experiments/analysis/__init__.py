"""Answers drawn from collected runs: pure functions, and a command that stores what they find beside the results."""
