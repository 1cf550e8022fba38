"""Several devices at once: one process for each, and all begin to count together."""

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from common.log import progress_bar, still
from common.program import UserError
from tools.deploy.infer_python.latency import DeviceResult
from tools.deploy.infer_python.worker import Message, Ready, Work, do

log = logging.getLogger(__name__)

LONGEST_SILENCE = 7200
"Seconds without a message from any device after which all are given up; a warm-up on one core can take an hour."
LONGEST_END = 10
"Seconds in which a process must end once it is told to."


def run_on_devices(works: list[Work]) -> dict[int, DeviceResult]:
    """Device -> what it did. UserError that names the device, if one fails; the others are then ended."""
    results = {work.device: DeviceResult("", []) for work in works}
    cold, spoken, batches = len(works), 0, sum(len(work.batches) for work in works)

    def doing() -> str:
        return "loading the engines and warming up" if cold else f"spoke {spoken} of {batches} batches"

    with progress_bar("speaking", batches, initial=0) as bar, still(doing):
        for device, message in _alone(works[0]) if len(works) == 1 else _together(works):
            if isinstance(message, str):
                results[device].device_name = message
                log.info("device %d: %s", device, message)
            elif isinstance(message, Ready):
                cold -= 1
            else:
                results[device].iterations.append(message)
                spoken += 1
                bar.update()
    return results


def _alone(work: Work) -> Iterator[tuple[int, Message]]:
    return ((work.device, message) for message in do(work))


def _together(works: list[Work]) -> Iterator[tuple[int, Message]]:
    working: dict[Connection, tuple[int, BaseProcess]] = {}
    ready: list[Connection] = []
    try:
        for work in works:
            connection, process = _start(work)
            working[connection] = work.device, process
        while working:
            heard = wait(list(working), LONGEST_SILENCE)
            if not heard:
                silent = ", ".join(str(device) for device, _ in working.values())
                raise UserError(f"device {silent}: not a word for {LONGEST_SILENCE} s, given up")
            for connection in [each for each in working if each in heard]:
                device, process = working[connection]
                message = _receive(connection, device, process)
                if message is None:
                    del working[connection]
                    continue
                yield device, message
                ready += [connection] if isinstance(message, Ready) else []
                if len(ready) == len(works):
                    for each in ready:
                        each.send("go")
                    ready.clear()
    finally:
        for _, process in working.values():
            process.terminate()
        for _, process in working.values():
            process.join(LONGEST_END)
            process.kill()


def _start(work: Work) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")  # threads and cards do not survive a fork
    connection, theirs = context.Pipe()
    process = context.Process(target=_process, args=(work, theirs), daemon=True)
    # The process inherits it. A terminal's Ctrl-C goes to all; this one then ends the others.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    theirs.close()
    return connection, process


def _receive(connection: Connection, device: int, process: BaseProcess) -> Message | None:
    try:
        message = connection.recv()
    except EOFError:
        process.join(LONGEST_END)
        raise UserError(f"device {device}: its process ended with code {process.exitcode}") from None
    if isinstance(message, UserError):
        raise UserError(f"on device {device}: {message}")
    return message


def _process(work: Work, connection: Connection) -> None:
    """Send what ``do`` yields, and at last None or a UserError; after Ready, wait for the word to go on."""
    try:
        for message in do(work):
            connection.send(message)
            if isinstance(message, Ready):
                connection.recv()
        connection.send(None)
    except UserError as error:
        connection.send(error)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass  # nobody is left to work for
    except Exception:
        traceback.print_exc()
        connection.send(UserError("this is a bug, see above"))
