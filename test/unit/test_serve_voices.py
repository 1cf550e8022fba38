"""Which voices are loaded when, and which stay in memory, by a clock that the test sets."""

import asyncio
from types import SimpleNamespace

import pytest

from common.program import UserError
from common.voices import Settings

module = pytest.importorskip("tools.serve.voices", reason="requirement-serve.txt is not installed")
errors = pytest.importorskip("tools.serve.errors")


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


def test_a_voice_is_loaded_once(monkeypatch):
    shelf = Shelf(monkeypatch, 20, a=10, b=10)
    assert [shelf.ask(name).name for name in ("", "a", "b", "a")] == ["a", "a", "b", "a"]
    assert shelf.made == ["a", "b"]


def test_requests_that_come_together_load_it_once(monkeypatch):
    shelf = Shelf(monkeypatch, 20, a=10)

    async def ask():
        return await asyncio.gather(*(shelf.voices.speaker(shelf.voices.entry("a")) for _ in range(20)))

    assert len(set(map(id, asyncio.run(ask())))) == 1
    assert shelf.made == ["a"]


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


@pytest.mark.parametrize(("later", "refused"), [(9.9, True), (10.0, False)])
def test_there_is_no_room_beside_voices_that_were_just_asked_for_and_fill_the_memory(monkeypatch, later, refused):
    shelf = Shelf(monkeypatch, 20, a=10, b=10, c=10)
    shelf.ask("a")
    shelf.ask("b")
    if not refused:
        assert shelf.ask("c", later=later).name == "c"
        return
    with pytest.raises(errors.RefusalError, match="there is no room for c"):
        shelf.ask("c", later=later)


def test_a_voice_that_speaks_stays_though_it_was_asked_for_longest_ago(monkeypatch):
    shelf = Shelf(monkeypatch, 20, a=10, b=10, c=10)
    shelf.ask("a").active.append("speech")
    shelf.ask("b", later=11)
    shelf.ask("c", later=11).active.append("speech")
    assert shelf.closed == ["b"]
    with pytest.raises(errors.RefusalError, match="other voices are speaking, and there is no room for b"):
        shelf.ask("b", later=11)


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


def test_a_voice_that_is_not_known_or_damaged_is_refused(monkeypatch, caplog):
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
