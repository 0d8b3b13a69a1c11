"""Analytic predictions against simulation: one file of simulations for each file of `theory`."""
