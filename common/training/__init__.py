"""The training of both models."""
