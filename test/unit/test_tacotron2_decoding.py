"""Where a clip ends."""

import torch
from tacotron2_toys import toy, toy_batch

from tacotron2 import decoding
from tacotron2.model import padding_mask

STEPS = 17


@torch.no_grad()
def decoder_and_values():
    """A decoder whose gates fire at their own steps, one never; what it attends to, padding, masks of many steps."""
    model = toy(gate_threshold=0.7)
    text, lengths, _, _ = toy_batch()
    padding = padding_mask(lengths, text.shape[1])
    values = model.encoder(model.embedding(text).transpose(1, 2), padding, alone=True)
    masks = model.decoder.prenet.draw_masks(list(range(len(text))), like=values)
    return model.decoder, values, padding, [next(masks) for _ in range(STEPS)]


@torch.no_grad()
def test_a_clip_ends_at_its_gate_or_at_its_limit():
    """Whichever comes first; a gate that fires behind the limit has not ended it."""
    decoder, values, padding, masks = decoder_and_values()
    text = decoding.Text(values, decoder.attention_layer.prepare(values, padding), 100)
    made, _ = decoding.steps_of_decoder(decoder, text)(masks, decoding.start(decoder, values))
    fired = torch.stack([torch.sigmoid(gate) > decoder.gate_threshold for _, gate, _ in made])
    gates = torch.where(fired.any(dim=0), fired.int().argmax(dim=0) + 1, 1000)
    assert len(gates.unique()) == 4 and gates.min() > 1 and gates.max() == 1000
    for limits in (gates - 1, gates, gates + 1):
        limits = limits.clamp(max=len(masks))
        _, taken, stopped = decoding.decode(decoder, values, padding, masks, limits)
        assert torch.equal(taken, torch.minimum(gates, limits))
        assert torch.equal(stopped, gates <= limits)
