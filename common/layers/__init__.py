"""Layers, and the ways in which devices compute them."""
