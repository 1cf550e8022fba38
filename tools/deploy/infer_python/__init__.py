"""Speech by engines."""
