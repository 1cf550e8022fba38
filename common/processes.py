"""Work that is shared out among processes, with the results in the order of what went in."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from common.program import StopSignal, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"How many items each process is given ahead of the one that is waited for."


def in_processes(
    begin: Callable[[], Callable[[Item], Result]], items: Iterable[Item], jobs: int, stop: StopSignal
) -> Generator[Result, None, None]:
    """What ``jobs`` processes of one thread each make of the items, in their order; ends early when ``stop`` is
    requested.

    Each process calls ``begin`` once, and what that returned for each of its items. UserError if a process is killed.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # in the processes, which inherit it
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    pool = ProcessPoolExecutor(jobs, context, _start, (begin,))
    to_submit = iter(items)
    waiting: deque[Future[Result]] = deque()
    finished = False
    try:
        waiting.extend(_submit(pool, item) for item in islice(to_submit, AHEAD * jobs))
        while waiting and _is_done(waiting[0], stop):
            yield waiting.popleft().result()
            waiting.extend(_submit(pool, item) for item in islice(to_submit, 1))
        finished = not stop.requested
    except BrokenProcessPool as error:
        if not stop.requested:  # else the signal was sent to all processes
            raise UserError(
                "a process was killed, perhaps for lack of memory: fewer --jobs need less;"
                " the same command goes on where it was"
            ) from error
    finally:
        for result in waiting:  # the pool's own way of cancelling does nothing once the pool is freed
            result.cancel()
        pool.shutdown(wait=finished)


def _is_done(result: Future[Result], stop: StopSignal) -> bool:
    """Wait for a result; False if a stop is requested meanwhile."""
    while not stop.requested:
        if wait([result], timeout=0.2).done:
            return True
    return False


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future:
    """Submitting starts the processes. Ctrl-C is for the program alone: they inherit that the signal is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_work_on, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_work: Callable[[Any], Any]


def _start(begin: Callable[[], Callable[[Any], Any]]) -> None:
    """Begin a process, which ends when the program has ended in whatever way."""
    global _work
    threading.Thread(target=_end_with_program, daemon=True).start()
    _work = begin()


def _work_on(item: Any) -> Any:
    return _work(item)


def _end_with_program() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
