"""The evaluation of both models."""
