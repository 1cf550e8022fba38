"""Graphs to engines."""
