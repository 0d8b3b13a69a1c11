"""`python -m lab VERB` does what `lab VERB` does."""

from lab.cli import entry_point

entry_point()
