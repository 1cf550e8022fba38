"""How every program of this repository starts, fails and ends."""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import re
import reprlib
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn

log = logging.getLogger(__name__)

LAUNCHER = "LAUNCHER_PID"
"The variable in which common/launch.py tells its ranks who it is."
OF_A_LAUNCH = re.compile("(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")
"Variables that torchrun sets for its ranks."
PR_SET_PDEATHSIG = 1
"Linux's prctl: the signal that comes when the parent ends."

BY_PEER = re.compile("gloo|hccl|EI0002|EI0006|killed by signal: Terminated", re.IGNORECASE)
"In an error that only says that another process is gone."

at_end = ExitStack()
"What ``run`` closes when ``main`` has ended, well or not."


class UserError(Exception):
    """Something the user can fix. Shown as one line that says what to do, without a traceback."""

    code = 1
    "The exit code."


class WriteError(UserError, OSError):
    """A file that cannot be written, for want of space, say; with the errno, the reason and the file of an OSError."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}"


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def shown(value: object) -> str:
    """A value in an error message: short, however long, deep or circular it is."""
    brief = reprlib.Repr()
    brief.maxlevel = 2
    try:
        return brief.repr(value)
    except Exception:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} that cannot be shown"


class Parser(argparse.ArgumentParser):
    """argparse with examples in ``--help`` and one-line errors; adds ``--debug``."""

    def __init__(self, description: str, examples: str):
        super().__init__(
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of errors in the input")

    def error(self, message: str) -> NoReturn:
        message = f"{message} (--help lists the options)"
        self.exit(2, None if left_for_launcher(message, 2) else f"error: {message}\n")


class StopSignal:
    """Remembers that one of ``signals`` came, to be obeyed between two steps. Made at the start of a program."""

    def __init__(self, *signals: int):
        self.requested = 0
        "The number of the signal that came; 0 as long as none has."
        for signum in signals:
            signal.signal(signum, self._request)

    def _request(self, signum: int, frame: object) -> None:
        self.requested = signum


def run(main: Callable[[], None], may_be_rank: bool = False) -> NoReturn:
    """Call ``main`` and end the process with a code that tells the truth.

    0 when it returned, 1 on an error (or what a UserError has as ``code``), 2 on wrong options (argparse), 130 on
    Ctrl-C. A program that is always one process, not ``may_be_rank``, forgets the variables that a launch has left in
    the environment.
    """
    if not may_be_rank:
        for name in filter(OF_A_LAUNCH.fullmatch, list(os.environ)):
            del os.environ[name]
    code = 0
    try:
        if has_launcher():
            end_with_parent()
        with at_end:
            main()
    except UserError as error:
        # From a loader process the error arrives wrapped in that process's traceback.
        message = str(error).rpartition(f"{type(error).__name__}: ")[2]
        _fail(message, show_traceback="--debug" in sys.argv, code=error.code)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        _fail(f"{type(error).__name__}: {error}", show_traceback=True, by_peer=is_of_a_peer(error))
    if "WORLD_SIZE" in os.environ:
        # A thread of the process group that wakes up in interpreter shutdown aborts the process.
        _end(code)
    sys.exit(code)


def is_of_a_peer(error: BaseException | None) -> bool:
    """Whether the error, or one it was raised under, only says that another rank is gone.

    To end the ranks that are left torchrun sends SIGTERM, also to their loader processes. EI0002 and EI0006 are CANN's
    codes of a wait for another rank.
    """
    if error is None:
        return False
    message = str(error)
    told = type(error).__module__.startswith("torch.distributed") or BY_PEER.search(message) is not None
    return told or is_of_a_peer(error.__cause__ or error.__context__)


def has_launcher() -> bool:
    """Whether common/launch.py started this process, and not one that left its variables in the environment."""
    return os.environ.get(LAUNCHER) == str(os.getppid())


def end_with_parent() -> None:
    """Be killed when the parent is, where the system can do that: ranks whose launcher is gone would train on, or hold
    others up, unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def left_for_launcher(message: str, code: int, by_peer: bool = False) -> bool:
    """Whether common/launch.py started this process and gets the message to show.

    The launcher shows the message of the first rank that failed, once; here every rank would show one. It also ends
    with the ``code`` of this process, which torchrun may kill before it has ended.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return False
    report = {"message": message, "timestamp": time.time(), "by_peer": by_peer, "code": code}
    unfinished = f"{path}.part"  # torchrun may kill this process here, too
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump(report, file)
        os.replace(unfinished, path)
    except OSError:  # the variable is of a launch that has ended
        return False
    return has_launcher()


def _fail(message: str, show_traceback: bool, by_peer: bool = False, code: int = 1) -> NoReturn:
    """Log the error and end with the code."""
    message = " ".join(message.split())
    level = logging.DEBUG if left_for_launcher(message, code, by_peer) else logging.ERROR
    log.log(level, "error: %s", message, exc_info=show_traceback)
    # A rank that failed must not wait in interpreter shutdown for collectives of the others.
    _end(code)


def _end(code: int) -> NoReturn:
    """End the process without interpreter shutdown."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
