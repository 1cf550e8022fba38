"""The steps of decoding that a CUDA card replays are the plain ones, text after text. A stand-in replays what was
recorded."""

import threading

import pytest
import torch
from graph_tape import taped
from on_card import OnCard
from tacotron2_toys import toy

from common import cuda_graph
from tacotron2 import decoding, recorded_steps
from tacotron2.decoding import Text
from tacotron2.recorded_steps import RecordedSteps

AT_ONCE = 5
"Steps of a block, here."
NUMBER = 3 * AT_ONCE + 2


@pytest.fixture
def recordings(monkeypatch):
    """Those made so far."""
    made = []
    for module in (decoding, recorded_steps):
        monkeypatch.setattr(module, "STEPS_BETWEEN_LOOKS", AT_ONCE)
    monkeypatch.setattr(recorded_steps, "recorded", lambda work, card: made.append(work) or taped(work, card))
    return made


@pytest.fixture
def decoder():
    return toy(gate_threshold=0.7).decoder


def make_text(decoder, number, symbols=8, clips=2, limits=100, dtype=torch.float32):
    """The text of this number, the second clip half as long, as it is on a card."""
    generator = torch.Generator().manual_seed(number)
    channels = decoder.attention_rnn.input_size - decoder.prenet_dim
    values = torch.randn(clips, symbols, channels, generator=generator).to(dtype)
    padding = torch.zeros(clips, symbols, dtype=torch.bool)
    padding[1:, symbols // 2 + number % 2 :] = True
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return Text(values.as_subclass(OnCard), decoder.attention_layer.prepare(values, padding), limits)


@torch.no_grad()
def speak(take_steps, decoder, text, number):
    """All that is made of a text, block by block, and the last state."""
    seeds = [number + i for i in range(len(text.values))]
    drawn = decoder.prenet.draw_masks(seeds, like=text.values.as_subclass(torch.Tensor))
    masks = [next(drawn) for _ in range(NUMBER)]
    made, state = [], decoding.start(decoder, text.values)
    for first in range(0, NUMBER, AT_ONCE):  # the last block is short
        more, state = take_steps(masks[first : first + AT_ONCE], state)
        made += more
    return [*(tensor.clone() for step in made for tensor in step), *(tensor.clone() for tensor in state.tensors())]


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("limits", [100, 7, torch.tensor([3, 9])])
def test_text_after_text_the_steps_are_the_plain_ones(recordings, decoder, limits):
    """Recorded from the second block of a shape on, once."""
    make_steps = RecordedSteps(decoder)
    for number, symbols in enumerate([8, 8, 6, 8, 6, 8]):
        text = make_text(decoder, number, symbols, limits=limits)
        expected = speak(decoding.steps_of_decoder(decoder, text), decoder, text, number)
        assert_equal(speak(make_steps(text), decoder, text, number), expected)
        assert len(recordings) == (1 if number < 2 else 2)


def test_other_shapes_precisions_and_numbers_of_clips_are_recorded_by_themselves(recordings, decoder):
    make_steps = RecordedSteps(decoder)
    for count, changes in enumerate([{}, {"symbols": 7}, {"clips": 3}, {"dtype": torch.bfloat16}], start=1):
        for number in range(2):
            text = make_text(decoder, number, **changes)
            expected = speak(decoding.steps_of_decoder(decoder, text), decoder, text, number)
            assert_equal(speak(make_steps(text), decoder, text, number), expected)
        assert len(recordings) == count


@torch.no_grad()
def test_what_was_decoded_stays_when_more_is(recordings, decoder):
    """And is what is decoded elsewhere; the texts stay, too."""
    make_steps, texts, found, expected = RecordedSteps(decoder), [], [], []
    for number in range(4):
        values, memory, _ = make_text(decoder, number)
        texts.append((values, values.clone()))
        limits = torch.tensor([NUMBER, 3 + number])
        masks = torch.rand(3 * AT_ONCE, 2, 2, decoder.prenet_dim)
        given = memory.padding[:, 0], masks, limits
        found.append(decoding.decode(decoder, values, *given, make_steps))
        expected.append(decoding.decode(decoder, values.as_subclass(torch.Tensor), *given))
    for (decoded, *ours), (plain, *theirs) in zip(found, expected, strict=True):
        assert_equal([*decoded, *ours], [*plain, *theirs])
    assert len(recordings) == 1 and {each for *_, stopped in found for each in stopped.tolist()} == {True, False}
    assert_equal(*zip(*texts))


def test_the_first_block_of_a_shape_is_not_recorded(recordings, decoder):
    """Libraries set themselves up in it."""
    make_steps, text = RecordedSteps(decoder), make_text(decoder, 0)
    masks = list(torch.ones(AT_ONCE, 2, 2, decoder.prenet_dim))
    for count in (0, 1, 1):
        with torch.no_grad():
            make_steps(text)(masks, decoding.start(decoder, text.values))
        assert len(recordings) == count


def test_in_half_precision_by_autocast_too(recordings, decoder):
    make_steps = RecordedSteps(decoder)
    with torch.autocast("cpu", torch.bfloat16):
        for number in range(3):
            text = make_text(decoder, number, dtype=torch.bfloat16)
            expected = speak(decoding.steps_of_decoder(decoder, text), decoder, text, number)
            assert_equal(speak(make_steps(text), decoder, text, number), expected)
    assert len(recordings) == 1


def test_a_text_shorter_than_a_block_is_not_recorded(recordings, decoder):
    make_steps = RecordedSteps(decoder)
    for number in range(3):
        text = make_text(decoder, number)
        state = decoding.start(decoder, text.values)
        masks = list(torch.ones(AT_ONCE - 1, 2, 2, decoder.prenet_dim))
        with torch.no_grad():
            found, expected = (
                steps(masks, state) for steps in (make_steps(text), decoding.steps_of_decoder(decoder, text))
            )
        assert_equal(found[1].tensors(), expected[1].tensors())
    assert recordings == []


def test_each_thread_has_its_own_recordings_of_the_shapes_used_last(recordings, decoder, monkeypatch):
    monkeypatch.setattr(cuda_graph, "LARGEST_NUMBER", 2)
    make_steps = RecordedSteps(decoder)

    def speak_of(symbols):
        text = make_text(decoder, symbols, symbols)
        speak(make_steps(text), decoder, text, symbols)

    for symbols, count in ((5, 1), (6, 2), (5, 2), (7, 3), (5, 3), (6, 4)):
        speak_of(symbols)
        assert len(recordings) == count
    other = threading.Thread(target=speak_of, args=(6,))
    other.start()
    other.join()
    assert len(recordings) == 5


def test_elsewhere_nothing_is_recorded(recordings, decoder):
    text = make_text(decoder, 1)
    text = text._replace(values=text.values.as_subclass(torch.Tensor))
    for _ in range(3):
        expected = speak(decoding.steps_of_decoder(decoder, text), decoder, text, 1)
        assert_equal(speak(RecordedSteps(decoder)(text), decoder, text, 1), expected)
    assert recordings == []


def test_the_weights_are_joined_once_for_each_precision(recordings, decoder, monkeypatch):
    made = []
    linears = recorded_steps.constant_linears
    monkeypatch.setattr(recorded_steps, "constant_linears", lambda *given: made.append(given) or linears(*given))
    make_steps = RecordedSteps(decoder)
    for dtype in (torch.float32, torch.float32, torch.bfloat16, torch.float32):
        make_steps(make_text(decoder, 1, dtype=dtype))
    assert made == [(decoder, torch.float32), (decoder, torch.bfloat16)]
