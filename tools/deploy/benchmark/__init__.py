"""The benchmark of the engines."""
