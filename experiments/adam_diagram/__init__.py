"""How well theory knows the mean R² of Adam in a noisy bowl."""
