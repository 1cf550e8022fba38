"""Files that are whole whenever they exist."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common.program import UserError

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a disk"}
"What a path may lead to instead of a file."


def make_output_folder(path: str | Path) -> Path:
    """Make sure that files can be written to this folder; UserError if they cannot."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"cannot write to output_directory {path}: {error.strerror}") from error
    return Path(path)


def open_input(path: str | Path) -> BinaryIO:
    """A file to read. OSError as ``open``; UserError for a pipe, a socket or a device, which may have no end."""
    mode = os.stat(path).st_mode  # before it is opened: a pipe that nobody writes to would be waited for
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'no file')}: name a file")
    return open(path, "rb")


@contextmanager
def written_whole(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the name ``path`` only once it is complete and on the disk.

    If the body fails, nothing is left behind and an older file of that name stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            with suppress(OSError):  # not every file system knows locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the half-written files of writers that were killed. A writer that is still alive holds a lock."""
    for path in Path(folder).glob(".*.part"):
        with suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
