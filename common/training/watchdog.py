"""Ends a process that makes no progress, so that a hanging rank does not hold up the others forever."""

import faulthandler
import logging
import os
import tempfile
import threading
import time

from common.program import left_for_launcher

log = logging.getLogger(__name__)

OWN_SHARE = 0.8
"""Share of the limit for work that a process does alone, so that a process that hangs reports before those that wait
for it."""
CHECKS = 50
"How many times the watchdog looks within the limit."


class Watchdog:
    """A thread that, if the process makes no progress, shows where all its threads are and ends it with 1."""

    def __init__(self, limit: float):
        """``limit`` in seconds."""
        self.limit = limit
        self._stopped = threading.Event()
        self.beat("starting")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self, doing: str, waits_for_others: bool = False) -> None:
        """The process has begun ``doing``; the next beat is due within the limit."""
        self._doing = doing
        self._due = time.monotonic() + self.limit * (1 if waits_for_others else OWN_SHARE)

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self.limit / CHECKS):
            if time.monotonic() > self._due:
                self._end()

    def _end(self) -> None:
        message = f"no progress while {self._doing}, given up after hang_limit = {self.limit:g} s"
        log.error("error: %s; the threads of this process are at:\n%s", message, stacks())
        left_for_launcher(message, 1)
        logging.shutdown()
        os._exit(1)


def stacks() -> str:
    """Where each thread of this process is."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()
