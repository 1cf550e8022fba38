"""The load test: what it counts of a running service."""

import asyncio
import json
import math
import os
import resource
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import RATE

load_test = pytest.importorskip("tools.serve.load_test", reason="requirement-serve.txt is not installed")
speaker_module = pytest.importorskip("tools.serve.speaker")

pytest_plugins = ["serving"]
NUMBERS = [f"{name}_p{percent}" for name in ("first", "factor") for percent in load_test.PERCENTILES]


def run_load_test(run_here, tmp_path, address, *clients):
    options = ("--url", address, "--clients", *clients, "--seconds", 0.1, "--json", "load.json", "--plot", "load.png")
    done = run_here(load_test.main, *options)
    return done, json.loads((tmp_path / "load.json").read_text())


def test_each_number_of_clients_is_a_row(serve, run_here, tmp_path):
    done, rows = run_load_test(run_here, tmp_path, serve(), 1, 3)
    assert done.returncode == 0, done.stderr
    assert [row["clients"] for row in rows] == [1, 3]
    for row in rows:
        assert row["requests"] >= row["clients"]
        assert row["failures"] == 0
        assert all(row[name] > 0 for name in NUMBERS)
        assert row["first_p50"] <= row["first_p95"] <= row["first_p99"]
        assert f"| {row['clients']} | {row['requests']} | 0 | {row['first_p50']:.2f} |" in done.stdout
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_the_factor_is_of_the_seconds_of_16_bit_audio(monkeypatch):
    """By a clock that goes on by a second with each look: 2 s for a second of audio, whose first part came after 1."""

    class Response:
        raise_for_status = staticmethod(lambda: None)

        async def aiter_bytes(self):
            for _ in range(2):
                yield bytes(RATE)

    @asynccontextmanager
    async def stream(*_, **__):
        yield Response()

    monkeypatch.setattr(load_test, "time", SimpleNamespace(perf_counter=count().__next__))
    answer = asyncio.run(load_test.ask(SimpleNamespace(stream=stream), {}, RATE))
    assert (answer.first, answer.factor) == (1, 2)


def test_what_is_refused_or_breaks_off_is_a_failure(serve, run_here, tmp_path, monkeypatch):
    """And the program fails."""
    monkeypatch.setattr(speaker_module, "to_16_bit", lambda audio: 1 / 0)
    done, (row,) = run_load_test(run_here, tmp_path, serve(), 2)
    assert done.returncode == 1
    assert "requests failed" in done.stderr
    assert row["failures"] == row["requests"] >= 2
    assert all(math.isnan(row[name]) for name in NUMBERS)


def test_no_service(run_here):
    done = run_here(load_test.main, "--url", "http://127.0.0.1:9", "--seconds", 0.1)
    assert done.returncode == 1
    assert "no service answers on http://127.0.0.1:9: start bash tools/serve.sh" in done.stderr


def test_a_failure_at_one_number_of_clients_is_one_of_all(run_here, monkeypatch):
    """However well it went at the others."""

    async def measure(args, clients):
        return load_test.summary(clients, [load_test.Answer(1.0, 1.0), load_test.Answer(clients - 1.0, 1.0)], 0.0)

    monkeypatch.setattr(load_test, "measure", measure)
    assert run_here(load_test.main, "--clients", 2).returncode == 0
    assert run_here(load_test.main, "--clients", 1, 2).returncode == 1


def test_memory_is_in_gb():
    found, pages = load_test.memory_of(os.getpid()), int(Path("/proc/self/statm").read_text().split()[1])
    assert found == pytest.approx(pages * resource.getpagesize() / 1e9, rel=0.2)
    assert load_test.memory_of(None) == 0


@pytest.mark.parametrize("option", ["--clients=0", "--seconds=0", "--seconds=nan", "--seconds=inf", "--rate=0"])
def test_what_is_refused(run_here, option):
    done = run_here(load_test.main, option)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr
