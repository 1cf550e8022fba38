"""Files that are whole whenever they exist."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common.program import UserError, WriteError

log = logging.getLogger(__name__)

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a disk"}
"What a path may lead to instead of a file."
READER_WITHIN = 60.0
"Seconds in which somebody must begin to read a pipe that is written to."


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
    mode = os.stat(path).st_mode  # before it is opened: that would wait for a pipe that nobody writes to
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'no file')}: name a file")
    return open(path, "rb")


@contextmanager
def written_whole(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the name ``path`` only once it is complete and on the disk.

    If the body fails, nothing is left behind and an older file of that name stays as it was. A symbolic link stays one,
    and the file behind it is written; a pipe or a device gets the complete file. WriteError where the system refuses
    any of it, also in the body.
    """
    path = Path(path)
    if is_stream(path):
        with _passed_on(path) as file:
            yield file
        return
    with _as_write_errors(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise WriteError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _as_write_errors(path, target.parent, temporary):
            with open(temporary, "wb") as file:
                with suppress(OSError):  # not every file system knows locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_stream(path: str | Path) -> bool:
    """Whether the path leads to a pipe or a device such as /dev/null. UserError for a socket or a disk."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # not there, or to be found out on opening it
        return False
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise UserError(f"{path} is {KINDS[stat.S_IFMT(mode)]}: name a file")
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def _passed_on(path: Path) -> Iterator[BinaryIO]:
    """A file that is put into the pipe or device once it is complete."""
    with tempfile.TemporaryDirectory() as folder:
        complete = Path(folder, path.name)
        with _as_write_errors(path, Path(folder), complete), open(complete, "wb") as file:
            yield file
        with _as_write_errors(path, None), open(complete, "rb") as file, _open_stream(path) as stream:
            shutil.copyfileobj(file, stream)


def _open_stream(path: Path) -> BinaryIO:
    """WriteError for a pipe that nobody begins to read."""
    until, waits = time.monotonic() + READER_WITHIN, False
    while True:
        try:
            stream = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if not waits:
                log.info("waiting for somebody to read the pipe %s", path)
                waits = True
            if time.monotonic() > until:
                raise WriteError(error.errno, "nobody reads from this pipe", str(path)) from error
            time.sleep(0.05)
    os.set_blocking(stream, True)
    return os.fdopen(stream, "wb")


@contextmanager
def _as_write_errors(path: Path, folder: Path | None, *own: Path) -> Iterator[None]:
    """Turn what the system refuses into a WriteError with the name of ``path`` and the space left in ``folder``.

    Errors that name a file count only if it is ``path``, ``folder`` or one of ``own``.
    """
    names = {None, str(path), str(folder), *map(str, own)}
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch wraps what the system said into a RuntimeError of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or isinstance(cause, WriteError) or not cause.strerror:
            raise
        if cause.filename not in names:
            raise
        reason = cause.strerror
        if folder and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            with suppress(OSError):
                where = "there" if folder == Path(os.path.realpath(path)).parent else f"in {folder}"
                reason += f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free {where})"
        raise WriteError(cause.errno, reason, str(path)) from error


def remove_leftovers(folder: str | Path) -> None:
    """Remove the half-written files of writers that were killed. A writer that is still alive holds a lock."""
    for path in Path(folder).glob(".*.part"):
        with suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
