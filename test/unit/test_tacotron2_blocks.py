"""Loops over frames in blocks, as a CUDA card goes through them, compute what the whole loops do. A stand-in replays
what was recorded."""

from itertools import product

import pytest
import torch
from graph_tape import taped
from on_card import OnCard
from recurrences import gradients_and_result, lstm_inputs, recurrence

from tacotron2 import blocks
from tacotron2.attention_recurrence import attend_over_time
from tacotron2.blocks import FEWEST, FRAMES, over_frames
from tacotron2.lstm import lstm_over_time

LENGTHS = [FEWEST * FRAMES, FEWEST * FRAMES + 1, FEWEST * FRAMES + FRAMES - 1, 6 * FRAMES]


@pytest.fixture
def recordings(monkeypatch):
    """As on a card; the work that was recorded so far."""
    made = []
    monkeypatch.setattr(blocks, "_pays", lambda over_time, frames: frames >= FEWEST * FRAMES)
    monkeypatch.setattr(blocks, "recorded", lambda work, card: made.append(work) or taped(work, card))
    return made


def test_blocks_are_for_long_loops_on_a_card_that_is_not_recording_anyway(monkeypatch):
    enough = FEWEST * FRAMES
    monkeypatch.setattr(blocks, "_as_graph", lambda work, *_: lambda part: work(*part))
    for on_card, length, recording in product((True, False), (enough - 1, enough), (True, False)):
        monkeypatch.setattr(blocks, "is_recording", lambda recording=recording: recording)
        frames, calls = torch.zeros(length), []
        frames = frames.as_subclass(OnCard) if on_card else frames
        over_frames(lambda _, part, calls=calls: calls.append(len(part)), [None], [frames], [])
        assert calls == ([FRAMES] * FEWEST if on_card and length == enough and not recording else [length])


def add_up(missing, read, before, total, written):
    """written[t] = before[t] + read[t] = before[t + 1]; the total of all frames so far."""
    assert missing is None
    for frame, state, after, out in zip(read, before, before[1:], written):
        torch.add(state, frame, out=out)
        after.copy_(out)
        total[:] += frame


@pytest.mark.parametrize("length", [1, FRAMES, *LENGTHS])
def test_every_frame_has_its_turn_after_the_ones_before(recordings, length):
    read, before, written = torch.randn(length, 2).double(), torch.zeros(length + 1, 2).double(), torch.zeros(length, 2)
    written = written.double()
    total, turns = torch.zeros(2).double(), []

    def work(missing, read, before, written):
        turns.append(len(read))
        add_up(missing, read, before, total, written)

    over_frames(work, [None, read], [before], [written])
    assert torch.allclose(written, read.cumsum(0), rtol=1e-12)
    assert torch.equal(before[1:], written) and torch.equal(before[0], torch.zeros(2).double())
    assert torch.allclose(total, read.sum(0), rtol=1e-12)
    whole = length < FEWEST * FRAMES
    # One call for the first frames, one that is recorded.
    assert turns == ([length] if whole else [FRAMES + length % FRAMES, FRAMES])
    assert len(recordings) == (0 if whole else 1)


@pytest.mark.parametrize("length", LENGTHS)
def test_backwards_the_last_frame_comes_first(recordings, length):
    read, written = torch.randn(length, 2).double(), torch.zeros(length, 2).double()
    so_far = torch.zeros(2).double()

    def work(read, written):
        for frame, out in zip(reversed(read.unbind()), reversed(written.unbind())):
            so_far.add_(frame)
            out.copy_(so_far)

    over_frames(work, [read], [], [written], backwards=True)
    assert torch.allclose(written, read.flip(0).cumsum(0).flip(0), rtol=1e-12)


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_attention_and_its_gradients_are_those_of_the_whole_loop(request, length, with_masks):
    tensors, padding, masks = recurrence(steps=length)
    given = attend_over_time, tensors, [padding, masks if with_masks else None]
    expected = gradients_and_result(*given)
    recordings = request.getfixturevalue("recordings")
    for ours, theirs in zip(gradients_and_result(*given), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert len(recordings) == 2
    with torch.no_grad():
        for ours, theirs in zip(attend_over_time(*tensors, *given[2]), expected):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert len(recordings) == 3


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_an_lstm_and_its_gradients_are_those_of_the_whole_loop(request, length, with_masks):
    known, weight, masks = lstm_inputs(length)
    given = lstm_over_time, [known, weight], [masks if with_masks else None]
    expected = gradients_and_result(*given)
    recordings = request.getfixturevalue("recordings")
    for ours, theirs in zip(gradients_and_result(*given), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert len(recordings) == 2
