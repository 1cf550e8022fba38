"""Programs around training: run them as ``python tools/<name>.py --help``."""

import common  # noqa: F401 - before torch, see there
