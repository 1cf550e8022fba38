"""What the processes of ``common.processes`` are given in its tests; without PyTorch, which takes seconds to load."""

import os
import signal
import time
from pathlib import Path

of_the_program = None
"What a program may have changed before its processes begin."


def begin(folder):
    """Notes that a process has begun; fails if it has before."""
    Path(folder, f"began {os.getpid()}").touch(exist_ok=False)

    def work(item):
        Path(folder, f"item {item}").touch()
        return 10 * item, os.getpid()

    return work


def begin_waiting(folder):
    """All but item 0 take until there is a file ``go``, or half a minute."""
    until = time.monotonic() + 30

    def work(item):
        Path(folder, f"began {item}").write_text(str(os.getpid()))
        while item and not Path(folder, "go").exists() and time.monotonic() < until:
            time.sleep(0.01)
        Path(folder, f"ended {item}").touch()
        return item

    return work


def begin_dying():
    """Item 1 is killed as for lack of memory."""

    def work(item):
        if item == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    return work


def begin_failing():
    def work(item):
        raise ZeroDivisionError(f"item {item}")

    return work


def begin_looking():
    """Of what the process has inherited."""

    def work(name):
        if name == "blocked":
            return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        if name == "memory":
            return of_the_program
        return os.environ.get(name)

    return work
