"""One run at a time writes to a folder.

The lock is a POSIX lock (``lockf``) on a file in the folder. It ends with the process that holds it, however that ends,
and processes forked from it do not hold it. On NFS the server keeps it for all machines; if the holder's machine
crashes, until it is back (NFS 3) or its lease has run out (NFS 4). On NFS mounted with ``nolock``, on Lustre with
``localflock`` and through most of FUSE, a lock only holds on its own machine.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from common import program
from common.program import UserError, WriteError

log = logging.getLogger(__name__)

LOCK = ".lock"
"The file's name. It names the process that has the lock, and is removed when that ends properly."
TAKEN = (errno.EAGAIN, errno.EACCES)
LONGEST_NAME = 500

_held: dict[Path, int] = {}
"This process's locks. Opening one of their files again and closing it would end the lock."


class BusyError(UserError):
    """Another run writes to the folder."""

    code = 75  # EX_TEMPFAIL of sysexits.h: the same command may work later


def hold_folder(folder: str | Path, option: str = "") -> None:
    """Be the only process that writes to the folder, which must exist, until the program ends.

    BusyError that names the holder, if there is one; ``option`` is the option that would name another folder.
    """
    program.at_end.enter_context(sole_writer(folder, option=option))


@contextmanager
def sole_writer(*folders: str | Path, option: str = "") -> Iterator[None]:
    """As ``hold_folder``, while the body runs. Folders that this process holds already stay held."""
    with ExitStack() as stack:
        for folder in sorted({Path(os.path.realpath(folder)) for folder in folders} - _held.keys()):
            file = _lock(folder, option)
            if file is not None:
                _held[folder] = file
                stack.callback(_release, folder)
        yield


def _lock(folder: Path, option: str) -> int | None:
    """The locked file; None, with a warning, where the file system knows no locks."""
    path = folder / LOCK
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise WriteError(error.errno, error.strerror, str(path)) from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file, wait=True)
            os.close(file)
            if error.errno in TAKEN:
                other = f" with {option}" if option else ""
                raise BusyError(
                    f"another run is writing to {folder}: {holder}; wait, or choose another folder{other}"
                ) from error
            log.warning("%s cannot be locked (%s): let no other run write to it", folder, error.strerror)
            return None
        if _is_at(path, file):  # and not removed by the process that held it until just now
            break
        os.close(file)
    _warn_of_another_machine(_holder(file), path)
    with suppress(OSError):  # on a full disk it names nobody
        os.ftruncate(file, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
    return file


def _holder(file: int, wait: bool = False) -> str:
    """Who has the lock, or had it last; "" if nobody is named. ``wait``: it may have been taken just now."""
    for _ in range(10 if wait else 1):
        name = os.pread(file, LONGEST_NAME, 0).decode(errors="replace")
        if name or not wait:
            return " ".join(name.split())
        time.sleep(0.05)
    return "it has left no name"


def _warn_of_another_machine(left: str, path: Path) -> None:
    """A name that is left over belongs to a run that was killed, or to one that this machine cannot see."""
    if left and f" on {socket.gethostname()} since " not in left:
        log.warning(
            "%s names %s, which has not ended properly; if it still runs, the locks of this file system do not reach"
            " from machine to machine: stop one of the two",
            path, left,
        )  # fmt: skip


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _release(folder: Path) -> None:
    file = _held.pop(folder)
    with suppress(OSError):
        if _is_at(folder / LOCK, file):  # the folder may have been moved
            os.unlink(folder / LOCK)
    os.close(file)


def main() -> None:
    """For scripts: python -m common.folder_lock FOLDER COMMAND...: a lock outlives exec."""
    folder, *command = sys.argv[1:]
    hold_folder(folder)
    for file in _held.values():
        os.set_inheritable(file, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    program.run(main)
