"""Several processes at one address: which are started again, how all end; real ones and some that are none."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
from running_programs import wait_for

from common.program import UserError
from conftest import ROOT
from serving import is_refused

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
module = pytest.importorskip("tools.serve.voices")
errors = pytest.importorskip("tools.serve.errors")
workers = pytest.importorskip("tools.serve.workers")


WORKERS = """
import os, signal, socket, sys, time
from pathlib import Path
from tools.serve import workers

hold = Path(__file__).with_name("hold")

def end(place):
    place.close()
    while hold.exists():
        time.sleep(0.01)
    os._exit(0)

def serve(index, place):
    signal.signal(signal.SIGTERM, lambda *_: end(place))
    while True:
        connection, _ = place.accept()
        connection.sendall(f"{index} {os.getpid()}".encode())
        connection.close()

if __name__ == "__main__":
    workers.SOONEST_RESTART = float(sys.argv[1])
    place = socket.create_server(("127.0.0.1", 0))
    print(place.getsockname()[1], flush=True)
    workers.run_workers(2, place, serve, 10)
"""


@pytest.fixture
def start_workers(tmp_path):
    """A function that starts two workers; returns the process and a function that asks one: its index and pid."""
    (tmp_path / "two_workers.py").write_text(WORKERS)
    processes = []

    def start(soonest_restart):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "two_workers.py", str(soonest_restart)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        processes.append(process)
        port = int(process.stdout.readline())

        def ask():
            """The index and pid of a worker; one that is killed meanwhile gives no answer, and another is asked."""
            for _ in range(100):
                with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                    if answer := connection.recv(100).split():
                        return tuple(map(int, answer))
            raise AssertionError("no worker answers")

        ask.port = port
        return process, ask

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask_both(ask):
    """Index -> pid of both workers."""
    found = {}

    def both():
        found.update([ask()])
        return len(found) == 2

    wait_for(both, 100)
    return found


def test_workers_share_the_address_and_are_started_again(start_workers):
    process, ask = start_workers(soonest_restart=0)
    pids = ask_both(ask)
    os.kill(pids[1], signal.SIGKILL)
    wait_for(lambda: ask()[1] not in pids.values(), 100)
    pids = ask_both(ask)
    assert set(pids) == {0, 1}
    process.terminate()
    assert process.wait(60) == 0
    assert not any(map(is_alive, pids.values()))


def test_while_workers_end_nobody_is_made_to_wait(start_workers, tmp_path):
    """A connection is refused at once, not when the last worker has finished what it had begun."""
    process, ask = start_workers(soonest_restart=0)
    ask_both(ask)
    (tmp_path / "hold").touch()
    process.terminate()
    wait_for(lambda: is_refused(ask.port), 60)
    assert process.poll() is None
    (tmp_path / "hold").unlink()
    assert process.wait(60) == 0


def test_workers_end_with_their_parent(start_workers):
    process, ask = start_workers(soonest_restart=0)
    pids = ask_both(ask)
    process.kill()
    wait_for(lambda: not any(map(is_alive, pids.values())), 60)


def test_a_worker_that_dies_at_once_ends_all(start_workers):
    process, ask = start_workers(soonest_restart=1000)
    pids = ask_both(ask)
    os.kill(pids[0], signal.SIGKILL)
    assert "worker 0 has ended with code -9" in process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert not any(map(is_alive, pids.values()))


@pytest.fixture
def office(monkeypatch):
    """Workers that end when the test says so: (time, index, code); what was done with them."""
    found = SimpleNamespace(now=0.0, did=[], ends=[], handlers={15: "before 15", 2: "before 2"})

    def signals(number, handler):
        before, found.handlers[number] = found.handlers[number], handler
        return before

    def start(index, place, serve):
        found.did.append(f"start {index}")
        worker = SimpleNamespace(index=index, exitcode=None, sentinel=None)
        worker.terminate = lambda: found.did.append(f"terminate {index}")
        worker.join = lambda seconds: found.did.append(f"join {index} for {seconds:g}")
        worker.kill = lambda: found.did.append(f"kill {index}")
        found.workers[index] = worker
        return worker

    def wait(sentinels, timeout):
        assert timeout == 0.5
        if not found.ends:
            found.handlers[15]()
            return
        found.now, index, code = found.ends.pop(0)
        found.workers[index].exitcode = code

    found.workers = {}
    monkeypatch.setattr(workers, "signal", SimpleNamespace(signal=signals, SIGTERM=15, SIGINT=2))
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: found.now))
    monkeypatch.setattr(workers, "wait", wait)
    monkeypatch.setattr(workers, "_start", start)
    found.run = lambda: workers.run_workers(2, SimpleNamespace(close=lambda: found.did.append("close")), None, 7.0)
    return found


END = ["close", "terminate 0", "terminate 1", "join 0 for 7", "kill 0", "join 1 for 7", "kill 1"]


def test_workers_are_started_and_ended(office):
    office.run()
    assert office.did == ["start 0", "start 1", *END]
    assert office.handlers == {15: "before 15", 2: "before 2"}


def test_a_worker_that_ends_later_is_started_again(office, caplog):
    office.ends = [(10.0, 1, 3), (20.0, 1, -9)]
    office.run()
    assert office.did == ["start 0", "start 1", "start 1", "start 1", *END]
    assert caplog.messages == [f"worker 1 has ended with code {code}: it is started again" for code in (3, -9)]


@pytest.mark.parametrize("ends", [[(9.9, 0, 1)], [(10.0, 0, 3), (19.9, 0, 1)]])
def test_a_worker_that_ends_soon_after_its_start_ends_all(office, ends):
    office.ends = ends
    with pytest.raises(UserError, match=r"^worker 0 has ended with code 1, see above$"):
        office.run()
    assert office.did[-len(END) :] == END
    assert office.handlers == {15: "before 15", 2: "before 2"}
