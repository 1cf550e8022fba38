"""Several processes that answer at one address: each has its own models and its own card."""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from common.program import UserError

log = logging.getLogger(__name__)

SOONEST_RESTART = 10.0
"Seconds: a worker that ends sooner after its start is not started again."


Serve = Callable[[int, socket.socket], None]
"Serves at the socket, as worker of this index, until SIGTERM; must be picklable."


def run_workers(count: int, place: socket.socket, serve: Serve, longest_end: float) -> None:
    """Run ``serve`` in so many processes until SIGTERM or SIGINT; then close ``place``, and SIGTERM to them.

    One that dies is started again; UserError for one that dies at once. ``longest_end``: seconds until those that do
    not end are killed.
    """
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    workers = {index: _start(index, place, serve) for index in range(count)}
    began = dict.fromkeys(workers, time.monotonic())
    try:
        while not ended.is_set():
            wait([worker.sentinel for worker in workers.values()], timeout=0.5)
            for index, worker in workers.items():
                if worker.exitcode is None or ended.is_set():
                    continue
                if time.monotonic() - began[index] < SOONEST_RESTART:
                    raise UserError(f"worker {index} has ended with code {worker.exitcode}, see above")
                log.error("worker %d has ended with code %s: it is started again", index, worker.exitcode)
                workers[index], began[index] = _start(index, place, serve), time.monotonic()
    finally:
        place.close()  # else clients that come now would wait for those that end
        for worker in workers.values():
            worker.terminate()
        until = time.monotonic() + longest_end
        for worker in workers.values():
            worker.join(max(0.0, until - time.monotonic()))
            worker.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(index: int, place: socket.socket, serve: Serve) -> BaseProcess:
    # Threads and cards do not survive a fork.
    worker = multiprocessing.get_context("spawn").Process(target=_work, args=(index, place, serve))
    worker.start()
    return worker


def _work(index: int, place: socket.socket, serve: Serve) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    serve(index, place)


def _end_with_the_parent() -> None:
    """Nobody else would end a worker whose parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
