"""hang_limit: how long a process may get nowhere, alone and waiting for others."""

import sys
import threading
from types import SimpleNamespace

import pytest

from common import distributed, program
from common.training import loop, main, watchdog
from runs import start
from waveglow import train


class Clock:
    """Stands in for the module time in the watchdog, which looks at it every 5 ms."""

    def __init__(self):
        self.now = 1000.0
        self.looks = threading.Semaphore(0)

    def monotonic(self) -> float:
        self.looks.release()
        return self.now

    def wait(self) -> None:
        """Until the watchdog has seen what time it is, and thought about it."""
        while self.looks.acquire(blocking=False):
            pass
        for _ in range(3):
            assert self.looks.acquire(timeout=60)


@pytest.mark.parametrize(
    ("options", "seconds"), [({}, 4000), ({"waits_for_others": False}, 4000), ({"waits_for_others": True}, 5000)]
)
def test_the_next_beat_is_due_within_the_limit(monkeypatch, options, seconds):
    """Within less of it for what a process does alone: so it speaks before those that wait for it."""
    clock, ended = Clock(), threading.Event()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "CHECKS", 10**6)
    monkeypatch.setattr(watchdog.Watchdog, "_end", lambda self: ended.set())
    with watchdog.Watchdog(5000) as dog:
        clock.now += 3999
        dog.beat("computing", **options)
        clock.now += seconds - 1
        clock.wait()
        assert not ended.is_set()
        clock.now += 2
        assert ended.wait(60)


def test_a_process_that_is_given_up_says_where_it_is_and_ends_with_1(monkeypatch, caplog):
    """To its log, with the stacks of all threads, and to the launcher; what it has logged is written first."""
    ends = []
    monkeypatch.setattr(watchdog, "left_for_launcher", lambda *said: ends.append(said))
    monkeypatch.setattr(watchdog.logging, "shutdown", lambda: ends.append("log"))
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: ends.append(code))
    with watchdog.Watchdog(7200) as dog:
        dog.beat("saving", waits_for_others=True)
        dog._end()
    message = "no progress while saving, given up after hang_limit = 7200 s"
    assert ends == [(message, 1), "log", 1]
    (record,) = caplog.records
    assert record.levelname == "ERROR" and message in record.message
    assert record.message.partition(":\n")[2].startswith(("Thread 0x", "Current thread 0x"))
    assert "in test_a_process_that_is_given_up" in record.message and "in _watch" in record.message


def test_it_watches_no_longer_than_the_run():
    before = set(threading.enumerate())
    with watchdog.Watchdog(50):
        (thread,) = set(threading.enumerate()) - before
        assert thread.name == "watchdog" and thread.daemon  # no end of the program waits for it
    thread.join(60)
    assert not thread.is_alive()


def test_no_wait_for_others_and_no_step_is_given_up_earlier(config, corpus, tmp_path, monkeypatch):
    """The limit reaches the process group and the loop."""
    limits = []
    monkeypatch.setattr(distributed, "start", lambda device, hang_limit, facts: limits.append(hang_limit))
    monkeypatch.setattr(loop, "Watchdog", lambda limit: limits.append(limit) or watchdog.Watchdog(limit))
    monkeypatch.setattr(main, "start_log", lambda args: None)
    monkeypatch.setattr(program, "signal", SimpleNamespace(signal=lambda *_: None))
    options = [
        f"--config={config[0]}", f"--data_path={corpus}", f"--output_directory={tmp_path / 'out'}", "--device=cpu",
        "--max_steps=1", "--hang_limit=7200", f"--log_directory={tmp_path / 'logs'}",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train", *options])
    train.main()
    assert limits == [7200, 7200]


def test_what_comes_next_is_said_to_the_watchdog(config, corpus, tmp_path, monkeypatch):
    """And whether it waits for other processes; so that it is known where a run hangs."""
    beats = []

    class Recorder(watchdog.Watchdog):
        def beat(self, doing, waits_for_others=False):
            beats.append((doing, waits_for_others))
            super().beat(doing, waits_for_others)

    monkeypatch.setattr(loop, "Watchdog", Recorder)
    start(config[1], corpus, tmp_path / "out", max_steps=1, batch_size=2, grad_accumulation=2)
    batch = [("computing the loss", False), ("exchanging gradients", True)]
    end = [("validating", False), ("comparing weights", True), ("saving", True)]
    assert beats == [("starting", False), ("loading data", False), *batch, *batch, *end]
