"""Which voices stay in memory, and which workers are started again: by a clock and processes that are none."""

import asyncio
from types import SimpleNamespace

import pytest

from common.program import UserError
from common.voices import Settings

module = pytest.importorskip("tools.serve.voices", reason="requirement-serve.txt is not installed")
errors = pytest.importorskip("tools.serve.errors")
workers = pytest.importorskip("tools.serve.workers")


class Shelf:
    """Voices of these sizes; ``now`` is the time."""

    def __init__(self, monkeypatch, memory, **sizes):
        self.now, self.made, self.closed = 1000.0, [], []
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.sizes = sizes
        self.voices = module.Voices([module.Entry(name, Settings(), 22050) for name in sizes], self.load, memory)

    def load(self, entry):
        self.made.append(entry.name)
        return SimpleNamespace(
            name=entry.name, bytes=self.sizes[entry.name], active=[], close=lambda: self.closed.append(entry.name)
        )

    def ask(self, name, later=0.0):
        self.now += later
        return asyncio.run(self.voices.speaker(self.voices.entry(name)))


@pytest.mark.parametrize(("memory", "closed"), [(20, []), (19, ["a"])])
def test_weights_may_take_all_of_the_memory(monkeypatch, memory, closed):
    shelf = Shelf(monkeypatch, memory, a=10, b=10)
    shelf.ask("a")
    shelf.ask("b", later=11)
    assert shelf.closed == closed


def test_no_more_voices_are_dropped_than_is_needed(monkeypatch):
    shelf = Shelf(monkeypatch, 30, a=10, b=10, c=10, d=10)
    for name in "abc":
        shelf.ask(name, later=11)
    shelf.ask("a", later=11)
    shelf.ask("d", later=11)
    assert shelf.closed == ["b"]
    shelf.ask("b", later=11)
    assert shelf.closed == ["b", "c"] and shelf.made == ["a", "b", "c", "d", "b"]


@pytest.mark.parametrize(("later", "kept"), [(9.9, True), (10.0, False)])
def test_a_voice_is_kept_for_ten_seconds_after_a_request(monkeypatch, later, kept):
    """Loading a second time beside it is allowed, as long as those that are kept leave room."""
    shelf = Shelf(monkeypatch, 15, a=10, b=10)
    shelf.ask("a")
    shelf.ask("a", later=5)
    shelf.ask("b", later=later)
    assert shelf.closed == ([] if kept else ["a"])


@pytest.mark.parametrize(("size", "refused"), [(14, False), (15, True), (16, True)])
def test_there_is_no_room_beside_voices_that_speak_and_fill_the_memory(monkeypatch, size, refused):
    shelf = Shelf(monkeypatch, 15, a=size, b=1)
    shelf.ask("a").active.append("speech")
    if not refused:
        assert shelf.ask("b", later=11).name == "b"
        return
    with pytest.raises(errors.RefusalError, match=r"^other voices are speaking, and there is no room for b$") as error:
        shelf.ask("b", later=11)
    assert (error.value.status, error.value.headers, shelf.made) == (429, {"Retry-After": "5"}, ["a"])
    assert shelf.ask("a").name == "a"  # which is there already


def test_what_was_just_loaded_is_not_dropped_for_its_own_size(monkeypatch):
    shelf = Shelf(monkeypatch, 5, a=10)
    assert shelf.ask("a").name == "a"
    shelf.ask("a", later=100)
    assert (shelf.made, shelf.closed) == (["a"], [])


def test_speeches_are_counted_over_all_voices_and_all_are_closed(monkeypatch, caplog):
    shelf = Shelf(monkeypatch, 100, a=1, b=1)
    for name, count in (("a", 2), ("b", 3)):
        shelf.ask(name).active.extend(range(count))
    assert shelf.voices.active == 5
    shelf.voices.close()
    assert shelf.closed == ["a", "b"]


def test_names_of_voices(monkeypatch, caplog):
    shelf = Shelf(monkeypatch, 100, a=1, b=1)
    assert [shelf.voices.entry(name).name for name in ("", "a", "b")] == ["a", "a", "b"]
    long = "x" * 50
    with pytest.raises(errors.RefusalError, match=f"^there is no voice '{long[:40]}': choose from a, b$") as error:
        shelf.voices.entry(long)
    assert (error.value.status, error.value.param) == (400, "voice")

    def fail(entry):
        raise UserError("it is damaged")

    shelf.voices._load = fail
    with pytest.raises(
        errors.RefusalError, match=r"^the voice b cannot be loaded, the service's log says why$"
    ) as error:
        shelf.ask("b")
    assert error.value.status == 500
    assert caplog.messages == ["the voice b cannot be loaded: it is damaged"]


# ---- workers ----


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


def test_one_that_ends_later_is_started_again(office, caplog):
    office.ends = [(10.0, 1, 3), (20.0, 1, -9)]
    office.run()
    assert office.did == ["start 0", "start 1", "start 1", "start 1", *END]
    assert caplog.messages == [f"worker 1 has ended with code {code}: it is started again" for code in (3, -9)]


@pytest.mark.parametrize("ends", [[(9.9, 0, 1)], [(10.0, 0, 3), (19.9, 0, 1)]])
def test_one_that_ends_soon_after_its_start_ends_all(office, ends):
    office.ends = ends
    with pytest.raises(UserError, match=r"^worker 0 has ended with code 1, see above$"):
        office.run()
    assert office.did[-len(END) :] == END
    assert office.handlers == {15: "before 15", 2: "before 2"}
