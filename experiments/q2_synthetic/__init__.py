"""Q2.5: token sign noise on synthetic models, beside theory."""
