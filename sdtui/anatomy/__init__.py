"""What a model is made of, from its files alone: no torch, no tensor read, nothing run."""
