"""One module a figure; each reads stored results only."""
