"""Several voices within a limit of memory, and several processes at one address."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest

from common.program import UserError
from common.voices import Settings
from conftest import ROOT
from serving import is_refused, wait_for

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
module = pytest.importorskip("tools.serve.voices")
errors = pytest.importorskip("tools.serve.errors")
workers = pytest.importorskip("tools.serve.workers")


class FakeSpeaker:
    def __init__(self, name):
        self.name, self.bytes, self.active, self.closed = name, 10, [], False

    def close(self):
        self.closed = True


@pytest.fixture
def voices(monkeypatch):
    """Three voices of 10 bytes, of which two have room."""
    monkeypatch.setattr(module, "LATELY", 0.0)
    entries = [module.Entry(name, Settings(), 22050) for name in ("first", "second", "third")]
    voices = module.Voices(entries, lambda entry: voices.made.append(FakeSpeaker(entry.name)) or voices.made[-1], 20)
    voices.made = []
    return voices


def get(voices, *names):
    """The speakers, asked for one after the other."""

    async def ask():
        return [await voices.speaker(voices.entry(name)) for name in names]

    return asyncio.run(ask())


def test_a_voice_is_loaded_once(voices):
    speakers = get(voices, "", "first", "second", "first")
    assert [speaker.name for speaker in speakers] == ["first", "first", "second", "first"]
    assert len(voices.made) == 2


def test_requests_that_come_together_load_it_once(voices):
    async def ask():
        return await asyncio.gather(*(voices.speaker(voices.entry("first")) for _ in range(20)))

    assert len(set(asyncio.run(ask()))) == 1
    assert len(voices.made) == 1


def test_the_voice_that_was_idle_for_longest_makes_room(voices):
    get(voices, "first", "second", "first", "third")
    assert [(speaker.name, speaker.closed) for speaker in voices.made] == [
        ("first", False), ("second", True), ("third", False),
    ]  # fmt: skip
    get(voices, "second")
    assert voices.made[0].closed


def test_a_voice_that_speaks_stays(voices):
    first, second = get(voices, "first", "second")
    first.active.append("speech")
    get(voices, "third")
    assert not first.closed
    assert second.closed
    assert voices.active == 1
    get(voices, "third")[0].active.append("speech")
    with pytest.raises(errors.RefusalError, match="other voices are speaking") as error:
        get(voices, "second")
    assert error.value.status == 429
    assert int(error.value.headers["Retry-After"]) > 0


def test_a_voice_that_was_just_asked_for_stays(voices, monkeypatch):
    monkeypatch.setattr(module, "LATELY", 1000.0)
    get(voices, "first", "second")
    with pytest.raises(errors.RefusalError, match="there is no room for third"):
        get(voices, "third")


def test_a_voice_that_is_asked_for_again_stays(voices, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(module, "LATELY", 10.0)
    get(voices, "first")
    now[0] = 100.0
    get(voices, "first", "second")
    with pytest.raises(errors.RefusalError, match="there is no room for third"):
        get(voices, "third")


def test_unknown_and_damaged_voices(voices):
    with pytest.raises(errors.RefusalError, match="no voice 'alloy': choose from first, second, third"):
        voices.entry("alloy")

    def fail(entry):
        raise UserError("/secret/place is damaged")

    voices._load = fail
    with pytest.raises(errors.RefusalError) as error:
        get(voices, "second")
    assert error.value.status == 500
    assert "secret" not in str(error.value)


def test_clients_try_again_what_is_the_services_fault():
    kinds = [json.loads(errors.answer(errors.RefusalError(status, "")).body)["error"]["type"] for status in (499, 500)]
    assert kinds == ["invalid_request_error", "server_error"]


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


def test_a_worker_that_does_not_end_is_killed(monkeypatch):
    """It was told to end, and had its time."""
    handlers, did = {}, []
    monkeypatch.setattr(workers, "signal", SimpleNamespace(signal=handlers.__setitem__, SIGTERM=15, SIGINT=2))
    monkeypatch.setattr(workers, "wait", lambda *_, **__: handlers[15]())
    steps = {name: partial(lambda name, *_: did.append(name), name) for name in ("close", "terminate", "join", "kill")}
    worker = SimpleNamespace(sentinel=None, exitcode=None, **steps)
    monkeypatch.setattr(workers, "_start", lambda *_: worker)
    workers.run_workers(1, worker, None, 0.0)
    assert did == ["close", "terminate", "join", "kill"]


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
