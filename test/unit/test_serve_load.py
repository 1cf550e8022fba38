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


# ---- its parts, without a service ----


class Http:
    """Stands in for a client: gives these parts of an answer, or fails before or behind them."""

    def __init__(self, *parts, fails=None, status=None):
        self.parts, self.fails, self.status, self.asked = parts, fails, status, []

    @asynccontextmanager
    async def stream(self, method, path, json):
        self.asked.append((method, path, json))
        yield self

    def raise_for_status(self):
        if self.status:
            raise load_test.httpx2.HTTPError("refused")

    async def aiter_bytes(self):
        for part in self.parts:
            yield part
        if self.fails:
            raise load_test.httpx2.HTTPError("broken off")


FAILED = load_test.Answer(0.0, 0.0)


@pytest.mark.parametrize("http", [Http(status=429), Http(fails=True), Http(b"ab", fails=True), Http()])
def test_what_is_no_whole_answer_has_failed(http):
    assert asyncio.run(load_test.ask(http, {"input": "Hi."}, RATE)) == FAILED
    assert http.asked == [("POST", "/v1/audio/speech", {"input": "Hi."})]


def test_clients_begin_with_sentences_and_seeds_of_their_own(monkeypatch):
    """And ask once at least, and until the time is over."""
    monkeypatch.setattr(load_test, "time", SimpleNamespace(perf_counter=count().__next__))
    wishes = []

    async def ask(http, wish, rate):
        wishes.append((wish, rate))
        return len(wishes)

    monkeypatch.setattr(load_test, "ask", ask)
    answers = []
    asyncio.run(load_test.client(None, 2, 1.0, 16000, answers))
    asyncio.run(load_test.client(None, 7, 0.0, 16000, answers))
    sentences = [load_test.SENTENCES[turn % 3] for turn in (2, 3, 7)]
    seeds = [2, 3, 7]
    expected = [
        ({"input": s, "response_format": "pcm", "seed": seed}, 16000) for s, seed in zip(sentences, seeds, strict=True)
    ]
    assert wishes == expected
    assert answers == [1, 2, 3]


def test_percentiles_are_over_the_requests_that_did_not_fail():
    answers = [load_test.Answer(float(i), i / 10) for i in range(1, 102)] + [FAILED] * 3
    row = load_test.summary(8, answers, 1.5)
    assert (row["clients"], row["requests"], row["failures"], row["memory_gb"]) == (8, 104, 3, 1.5)
    assert [row[f"first_p{p}"] for p in (50, 95, 99)] == [51, 96, 100]
    assert [row[f"factor_p{p}"] for p in (50, 95, 99)] == pytest.approx([5.1, 9.6, 10.0])


def row_of(clients, **numbers):
    row = load_test.summary(clients, [load_test.Answer(0.5, 0.25)], 1.234)
    return row | {"first_p95": 0.75, "first_p99": 1.5, "factor_p95": 0.5, "factor_p99": 2.0} | numbers


def test_the_table_in_markdown():
    assert load_test.table([row_of(1), row_of(32, requests=9, failures=2)]).splitlines() == [
        "| clients | requests | failures | first audio (s) p50 | first audio (s) p95 | first audio (s) p99"
        " | real-time factor p50 | real-time factor p95 | real-time factor p99 | memory (GB) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 1 | 1 | 0 | 0.50 | 0.75 | 1.50 | 0.25 | 0.50 | 2.00 | 1.23 |",
        "| 32 | 9 | 2 | 0.50 | 0.75 | 1.50 | 0.25 | 0.50 | 2.00 | 1.23 |",
    ]


def test_the_plot_is_over_the_number_of_clients(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(load_test.Figure, "savefig", lambda figure, file, **how: drawn.append((figure, how)))
    load_test.plot([row_of(1), row_of(8, first_p50=0.625, factor_p99=3.0)], tmp_path / "plot.png")
    ((figure, how),) = drawn
    assert how["format"] == "png"
    left, right = figure.axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in left.lines}
    assert lines == {"p50": ([1, 8], [0.5, 0.625]), "p95": ([1, 8], [0.75, 0.75]), "p99": ([1, 8], [1.5, 1.5])}
    assert [list(line.get_ydata()) for line in right.lines[:3]] == [[0.25, 0.25], [0.5, 0.5], [2.0, 3.0]]
    assert (left.get_xlabel(), left.get_ylabel()) == ("clients", "seconds to the first audio")
    assert right.get_ylabel() == "real-time factor" and left.get_ylim()[0] == right.get_ylim()[0] == 0


def test_what_is_the_default(run_here, monkeypatch, tmp_path):
    asked = []

    async def measure(args, clients):
        asked.append((args.url, args.seconds, args.rate, args.pid, clients))
        return row_of(clients)

    monkeypatch.setattr(load_test, "measure", measure)
    assert run_here(load_test.main).returncode == 0
    assert asked == [("http://127.0.0.1:8000", 60.0, 22050, None, clients) for clients in (1, 8, 32)]
    assert not list(tmp_path.glob("*.json")) and not list(tmp_path.glob("*.png"))
