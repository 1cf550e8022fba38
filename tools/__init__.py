"""Programs around training: run them as ``python tools/<name>.py --help``."""
