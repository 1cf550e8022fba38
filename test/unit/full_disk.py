"""A disk that is full."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(size: int):
    """No file takes more bytes than this: the system enforces such a limit as it does a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
