"""The phase diagram, analytic beside simulated."""
