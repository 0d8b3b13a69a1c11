"""What checkpoints do on fixed prompts and responses: log-probs, activations by layer, and why a layer changed."""
