"""CANN's operator files (TBE)."""
