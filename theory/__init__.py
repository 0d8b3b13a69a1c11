"""Analytic predictions: each file derives one and lists the points at which to check it."""
