"""Several devices at once: a process for each, which begin to count together."""

import logging
import multiprocessing
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

from common.log import progress_bar
from common.program import UserError
from tools.deploy.latency import Iteration, Measured
from tools.deploy.work import Work, do

log = logging.getLogger("deploy")


def run_on_devices(works: list[Work]) -> dict[int, Measured]:
    """Device -> what it did. UserError that names the device, if one fails; the others are then ended."""
    results = {work.device: Measured("", []) for work in works}
    with progress_bar("speaking", sum(len(work.batches) for work in works), initial=0) as bar:
        for device, message in _alone(works[0]) if len(works) == 1 else _together(works):
            if isinstance(message, str):
                results[device].device_name = message
                log.info("device %d: %s", device, message)
            else:
                results[device].iterations.append(message)
                bar.update()
    return results


def _alone(work: Work) -> Iterator[tuple[int, str | Iteration]]:
    names: list[str] = []
    for iteration in do(work, ready=names.append):
        yield from ((work.device, names.pop()) for _ in range(len(names)))
        yield work.device, iteration


def _together(works: list[Work]) -> Iterator[tuple[int, str | Iteration]]:
    context = multiprocessing.get_context("spawn")  # threads and cards do not survive a fork
    working, ready = {}, []
    try:
        for work in works:
            connection, theirs = context.Pipe()
            process = context.Process(target=_process, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()
            working[connection] = work.device, process
        while working:
            for connection in wait(list(working)):
                device, process = working[connection]
                message = _receive(connection, device, process)
                if message is None:
                    del working[connection]
                    continue
                yield device, message
                ready += [connection] if isinstance(message, str) else []
                if len(ready) == len(works):
                    for each in ready:
                        each.send("go")
                    ready.clear()
    finally:
        for _, process in working.values():
            process.terminate()
            process.join()


def _receive(connection: Connection, device: int, process: multiprocessing.Process) -> str | Iteration | None:
    try:
        message = connection.recv()
    except EOFError:
        process.join()
        raise UserError(f"device {device}: its process ended with code {process.exitcode}") from None
    if isinstance(message, UserError):
        raise UserError(f"on device {device}: {message}")
    return message


def _process(work: Work, connection: Connection) -> None:
    """Sends the name of the device, waits to be told to go, sends iterations, and at last None or a UserError."""

    def ready(name: str) -> None:
        connection.send(name)
        connection.recv()

    try:
        for iteration in do(work, ready):
            connection.send(iteration)
        connection.send(None)
    except UserError as error:
        connection.send(error)
    except Exception:
        traceback.print_exc()
        connection.send(UserError("this is a bug, see above"))
