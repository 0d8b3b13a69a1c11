"""Hydra configuration of every verb, with the groups they choose from."""
