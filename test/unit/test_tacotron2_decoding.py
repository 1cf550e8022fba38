"""Where a clip ends; blocks of steps recorded as a graph compute what single steps do. A stand-in replays what was
recorded."""

import pytest
import torch
from graph_tape import taped
from test_tacotron2_model import toy, toy_batch

from tacotron2 import decoding
from tacotron2.model import padding_mask

AT_ONCE = 5


@torch.no_grad()
def decoder_and_values():
    """A decoder whose gates fire at their own steps, one never; what it attends to, padding, masks of many steps."""
    model = toy(gate_threshold=0.7)
    text, lengths, _, _ = toy_batch()
    padding = padding_mask(lengths, text.shape[1])
    values = model.encoder(model.embedding(text).transpose(1, 2), padding, alone=True)
    masks = model.decoder.prenet.draw_masks(list(range(len(text))), like=values)
    return model.decoder, values, padding, [next(masks) for _ in range(3 * AT_ONCE + 2)]


@pytest.mark.parametrize("limits", [100, torch.tensor([3, 9, 100, 14])])
@torch.no_grad()
def test_recorded_steps_are_the_plain_ones(monkeypatch, limits):
    monkeypatch.setattr(decoding, "recorded", taped)
    decoder, values, padding, masks = decoder_and_values()
    take_steps = decoding.steps_of_decoder(decoder, values, padding, limits)
    expected, end = take_steps(masks, decoding.start(decoder, values))

    made, state = take_steps(masks[:AT_ONCE], decoding.start(decoder, values))
    recorded = decoding.as_graph(take_steps, masks[AT_ONCE : 2 * AT_ONCE], state)
    for start in range(AT_ONCE, len(masks), AT_ONCE):  # the last block is short
        more, state = recorded(masks[start : start + AT_ONCE], state)
        made += more
    for ours, theirs in zip(made, expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert all(torch.equal(*pair) for pair in zip(state.tensors(), end.tensors(), strict=True))


@torch.no_grad()
def test_a_clip_ends_at_its_gate_or_at_its_limit():
    """Whichever comes first; a gate that fires behind the limit has not ended it."""
    decoder, values, padding, masks = decoder_and_values()
    made, _ = decoding.steps_of_decoder(decoder, values, padding, 100)(masks, decoding.start(decoder, values))
    fired = torch.stack([torch.sigmoid(gate) > decoder.gate_threshold for _, gate, _ in made])
    gates = torch.where(fired.any(dim=0), fired.int().argmax(dim=0) + 1, 1000)
    assert len(gates.unique()) == 4 and gates.min() > 1 and gates.max() == 1000
    for limits in (gates - 1, gates, gates + 1):
        limits = limits.clamp(max=len(masks))
        _, taken, stopped = decoding.decode(decoder, values, padding, masks, limits)
        assert torch.equal(taken, torch.minimum(gates, limits))
        assert torch.equal(stopped, gates <= limits)
