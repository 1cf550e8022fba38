"""Recording work of a CUDA card as a graph, on a stand-in for torch.cuda that notes what it is asked for, in order."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from common import cuda_graph
from common.cuda_graph import RUNS_BEFORE_A_RECORDING, Stream, is_recording, recorded, recorded_by_shape
from common.device import pick_device

CUDA = replace(pick_device("cpu"), type="cuda")
FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


class Card:
    """Stands in for torch.cuda. ``noted`` has what happened, each with the stream that was the current one."""

    def __init__(self):
        self.noted, self.current, self.count, self.number, self.recorded_on = [], "default", 0, 0, []
        card = self

        class Side:
            def __init__(self, priority=0):
                self.priority = priority
                card.count += 1
                self.name = f"side {card.count}"

            def wait_stream(self, other):
                card.note("wait", self.name, other.name)

        class Default:
            name = "default"

            def wait_stream(self, other):
                card.note("wait", self.name, other.name)

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                card.note("begin", pool, capture_error_mode)
                card.recorded_on.append(card.number)

            def capture_end(self):
                card.note("end")

            def replay(self):
                card.note("replay")

            def pool(self):
                return "pool of the graph"

        self.Stream, self.CUDAGraph, self.default = Side, Graph, Default()

    def note(self, *what):
        self.noted.append((*what, self.current))

    def current_stream(self):
        assert self.current == "default"
        return self.default

    @contextmanager
    def stream(self, side):
        before, self.current = self.current, side.name
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def device(self, device):
        before, self.number = self.number, device.index
        yield
        self.number = before

    def graph_pool_handle(self):
        return "pool of the stream"

    def synchronize(self):
        self.note("synchronize")


@pytest.fixture
def card(monkeypatch):
    card = Card()
    monkeypatch.setattr(torch, "cuda", card)
    monkeypatch.setattr(cuda_graph, "_of_thread", threading.local())
    monkeypatch.setattr(cuda_graph, "_refusing", set())
    return card


def work_of(card):
    result = object()
    return result, lambda: (card.note("work"), result)[1]


def recording(stream, pool):
    """Between waits in both directions; other threads may go on using the card meanwhile."""
    return [
        ("wait", stream, "default", "default"), ("begin", pool, "thread_local", stream), ("work", stream),
        ("end", stream), ("wait", "default", stream, "default"),
    ]  # fmt: skip


def test_what_goes_first_has_the_higher_priority(card):
    """Which is the lower number."""
    first, second = (Stream(CUDA, first)._stream.priority for first in (True, False))
    assert first < second == 0


@pytest.mark.parametrize("kind", ["cpu", "npu"])
def test_elsewhere_a_stream_is_ordinary_work(card, kind):
    stream = Stream(replace(CUDA, type=kind), first=True)
    _, work = work_of(card)
    with stream.active():
        assert stream.recorded(work) is work
    assert card.noted == [] and card.count == 0


def test_work_in_a_stream_goes_to_it(card):
    stream = Stream(CUDA, first=False)
    with stream.active():
        card.note("here")
    card.note("there")
    assert card.noted == [("here", "side 1"), ("there", "default")]


def test_a_stream_s_work_runs_before_it_is_recorded_with_the_stream_s_memory(card):
    stream = Stream(CUDA, first=True)
    result, work = work_of(card)
    replay = stream.recorded(work)
    runs = [("wait", "side 1", "default", "default"), *[("work", "side 1")] * RUNS_BEFORE_A_RECORDING]
    waits = [("synchronize", "default")]
    assert card.noted == runs + waits + recording("side 1", "pool of the stream") + waits
    card.noted.clear()
    assert replay() is result and replay() is result
    assert card.noted == [("replay", "default")] * 2


def test_a_thread_s_recordings_share_memory(card):
    """And a stream; that of another thread has its own ones."""
    result, work = work_of(card)
    replays = [recorded(work, FIRST), recorded(work, FIRST)]
    assert card.noted == recording("side 1", None) + recording("side 1", "pool of the graph")
    card.noted.clear()
    assert [replay() for replay in replays] == [result] * 2 and card.noted == [("replay", "default")] * 2
    card.noted.clear()
    other = threading.Thread(target=recorded, args=(work, FIRST))
    other.start()
    other.join()
    assert card.noted == recording("side 2", None)


def test_a_recording_is_made_on_the_card_of_the_work(card):
    """Whichever is the thread's current one; each card has its own stream and memory."""
    _, work = work_of(card)
    for device in (SECOND, FIRST, SECOND):
        recorded(work, device)
    assert card.recorded_on == [1, 0, 1] and card.number == 0
    expected = recording("side 1", None) + recording("side 2", None) + recording("side 1", "pool of the graph")
    assert card.noted == expected


def test_where_a_card_refuses_the_work_is_done_without_a_graph(card, caplog):
    def refuse():
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    assert recorded(refuse, FIRST) is refuse
    (message,) = caplog.messages
    assert message.endswith("(CUDA error: operation not permitted when stream is capturing)")
    assert card.noted[-1][0] == "end"
    _, work = work_of(card)
    card.noted.clear()
    assert recorded(work, FIRST) is work and card.noted == []
    assert recorded(work, SECOND) is not work
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("capturing", [True, False])
def test_whether_something_is_recorded_is_what_the_card_says(card, capturing):
    card.is_current_stream_capturing = lambda: capturing
    assert is_recording() is capturing


def test_a_recording_that_fails_has_ended(card):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recorded(fail, FIRST)
    assert card.noted[-1][0] == "end"


def sums(card):
    """Work of two tensors, and what it was given and made so far."""
    seen = []

    def work(x, y):
        card.note("work")
        seen.append((x, y, x + y))
        return seen[-1][2]

    return work, seen


def pair(number, length=2):
    return torch.full((length,), float(number)), torch.full((1,), 10.0 * number)


def names(card):
    """Of what was noted since the last call."""
    found = [note[0] for note in card.noted]
    card.noted.clear()
    return found


RECORDED = ["wait", "begin", "work", "end", "wait", "replay"]


def test_what_has_run_with_these_shapes_is_recorded(card):
    """It has tensors of its own, into which those of a call are copied; the result is a copy, too."""
    work, seen = sums(card)
    replayed = recorded_by_shape(work, CUDA)
    for number in range(RUNS_BEFORE_A_RECORDING):
        given = pair(number)
        assert replayed(*given) is seen[-1][2] and seen[-1][:2] == given
    assert names(card) == ["work"] * RUNS_BEFORE_A_RECORDING
    given = pair(7)
    result = replayed(*given)
    *own, made = seen[-1]
    assert names(card) == RECORDED
    assert all(each is not theirs and torch.equal(each, theirs) for each, theirs in zip(own, given, strict=True))
    assert result is not made and torch.equal(result, made)
    result = replayed(*pair(8))
    assert names(card) == ["replay"] and result is not made
    assert all(torch.equal(each, theirs) for each, theirs in zip(own, pair(8), strict=True))
    assert torch.equal(given[0], pair(7)[0])


@pytest.mark.parametrize("other", [pair(1, length=3), tuple(each.double() for each in pair(1))])
def test_other_shapes_and_types_are_recorded_by_themselves(card, other):
    work, _ = sums(card)
    replayed = recorded_by_shape(work, CUDA)
    for _ in range(RUNS_BEFORE_A_RECORDING + 1):
        replayed(*pair(1))
    names(card)
    for _ in range(RUNS_BEFORE_A_RECORDING):
        replayed(*other)
        assert names(card) == ["work"]
    replayed(*pair(1))
    assert names(card) == ["replay"]
    replayed(*other)
    assert names(card) == RECORDED


def test_what_was_used_last_is_kept(card, monkeypatch):
    monkeypatch.setattr(cuda_graph, "LARGEST_NUMBER", 2)
    work, _ = sums(card)
    replayed = recorded_by_shape(work, CUDA)
    for length in (1, 2):
        for _ in range(RUNS_BEFORE_A_RECORDING + 1):
            replayed(*pair(1, length))
    replayed(*pair(1, 1))
    replayed(*pair(1, 3))  # in the place of length 2
    names(card)
    replayed(*pair(1, 1))
    assert names(card) == ["replay"]
    replayed(*pair(1, 2))
    assert names(card) == ["work"]


def test_each_thread_records_for_itself(card):
    """What several replay at once would share memory."""
    work, _ = sums(card)
    replayed = recorded_by_shape(work, CUDA)
    for _ in range(RUNS_BEFORE_A_RECORDING + 1):
        replayed(*pair(1))
    names(card)
    other = threading.Thread(target=replayed, args=pair(1))
    other.start()
    other.join()
    assert names(card) == ["work"]


@pytest.mark.parametrize("kind", ["cpu", "npu"])
def test_elsewhere_nothing_is_recorded(card, kind):
    work, _ = sums(card)
    assert recorded_by_shape(work, replace(CUDA, type=kind)) is work
