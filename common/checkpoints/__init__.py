"""Checkpoints: written, found again, and read in every form."""
