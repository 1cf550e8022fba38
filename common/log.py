"""Log lines: to a file for each rank, and what matters also to the terminal."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

TELL_EVERY = 10.0
"Seconds between two lines of ``still``."


class Console:
    """The terminal, or whatever stands in its place. Kept apart because file descriptors 1 and 2
    may lead to the log file."""

    def __init__(self) -> None:
        self.out: TextIO = sys.stdout
        self.err: TextIO = sys.stderr
        self.shows_progress = sys.stderr.isatty()
        self.last_line = time.monotonic()
        "When the log had its last line."

    def say(self, line: str) -> None:
        """Print a line. A reader that went away (``| head``) is no reason to end a training."""
        try:
            print(line, file=self.out, flush=True)
        except OSError:
            self.mute()

    def mute(self) -> None:
        self.out = self.err = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
        self.shows_progress = False


console = Console()


def open_log(path: Path | None, quiet: bool, only_warnings: bool = False) -> None:
    """Start logging.

    With ``path``, everything the process prints, also from below Python, goes to that file, and messages of level INFO
    go to the terminal as well: only warnings with ``only_warnings`` (the first rank of another machine), none with
    ``quiet`` (all other ranks).
    DEBUG is for the lines of single steps, which go to the file, or to the terminal if there is no file.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for name in ("__main__", "common", "waveglow", "tacotron2", "tools"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        console.out = os.fdopen(os.dup(1), "w", buffering=1)
        console.err = os.fdopen(os.dup(2), "w", buffering=1)
        file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open until the process ends
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        _add_handler(_FileHandler(file), logging.DEBUG)
    if quiet:
        console.mute()
    elif only_warnings:
        console.shows_progress = False
        _add_handler(_ConsoleHandler(), logging.WARNING)
    else:
        _add_handler(_ConsoleHandler(), logging.INFO if path or console.shows_progress else logging.DEBUG)


def keep_earlier(folder: Path, but: str) -> None:
    """Move everything in the folder but one file, ``but``, into a folder beside it, named by the date of the newest."""
    left = [path for path in folder.iterdir() if path.name != but]
    if not left:
        return
    newest = time.localtime(max(path.lstat().st_mtime for path in left))
    dated = folder.with_name(f"{folder.name}_{time.strftime('%Y-%m-%d_%H-%M-%S', newest)}")
    while dated.exists():
        dated = dated.with_name(f"{dated.name}_")
    dated.mkdir()
    for path in left:
        path.rename(dated / path.name)


def with_progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """``items`` with a progress bar, if there is a terminal to show it."""
    return tqdm(items, description, total, file=console.err, disable=not console.shows_progress, leave=False)


def progress_bar(description: str, total: int, initial: int) -> tqdm:
    """A bar that is moved by ``update``."""
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        file=console.err,
        disable=not console.shows_progress,
        leave=False,
    )


@contextmanager
def still(doing: str | Callable[[], str]) -> Iterator[None]:
    """Log a line after ten seconds without one while the work inside goes on: what is done, or what a function says."""
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        told = 0.0

        def left() -> float:
            return max(console.last_line, told) + TELL_EVERY - time.monotonic()

        shortest = TELL_EVERY / 10  # what takes less than a second needs no line
        while not over.wait(max(shortest, left())):
            if left() < shortest:  # no line has come meanwhile
                told = time.monotonic()
                what = doing if isinstance(doing, str) else doing()
                logging.getLogger(__name__).info("%s: %.0f s so far", what, time.monotonic() - began)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


class _FileHandler(logging.StreamHandler):
    """Says on the terminal, once, that the file takes no more lines, on a full disk say. The program goes on."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not self.failed:
            self.failed = True
            console.say(f"warning: the log {self.stream.name} is not complete: {sys.exc_info()[1]}")


class _ConsoleHandler(logging.Handler):
    """Writes to the terminal above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        console.last_line = time.monotonic()
        try:
            tqdm.write(self.format(record), file=console.err if record.levelno >= logging.WARNING else console.out)
        except OSError:
            console.mute()


def _add_handler(handler: logging.Handler, level: int) -> None:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(handler)
