"""Several frames in a step of the decoder (n_frames_per_step): the model and its loss, against loops by hand."""

from itertools import islice

import pytest
import torch
from tacotron2_toys import SEEDS, encoded, stopping_toy, texts, toy, toy_batch
from torch.nn import functional as F

from tacotron2 import train
from tacotron2.alignment import alignment_quality
from tacotron2.loss import Tacotron2Loss, off_diagonal_attention
from tacotron2.model import padding_mask

N_MEL = 6
several = pytest.mark.parametrize("r", [2, 3])


def step_by_step(model, values, padding, masks, mel=None):
    """NVIDIA's decoder as one writes it down: for step after step its frames [B, r, n_mel], its gate [B], the attention
    [B, N]. Fed with the frames of mel [B, n_mel, T], or with its own."""
    decoder, attention, r = model.decoder, model.decoder.attention_layer, model.decoder.n_frames_per_step
    batch, symbols, channels = values.shape
    zeros = lambda *size: torch.zeros(batch, *size)  # noqa: E731
    hidden = cell = zeros(decoder.attention_rnn.hidden_size)
    decoder_hidden = decoder_cell = zeros(decoder.decoder_rnn.hidden_size)
    context, weights, total, frames = zeros(channels), zeros(symbols), zeros(symbols), zeros(r, N_MEL)
    for step, masks_of_step in enumerate(masks):
        x = frames.flatten(1)
        for layer, mask in zip(decoder.prenet.layers, masks_of_step):
            x = F.relu(layer(x)) * mask
        hidden, cell = decoder.attention_rnn(torch.cat([x, context], dim=1), (hidden, cell))
        location = attention.location_layer.location_conv(torch.stack([weights, total], dim=1)).transpose(1, 2)
        location = attention.location_layer.location_dense(location)
        seen = attention.query_layer(hidden)[:, None] + attention.memory_layer(values) + location
        energies = attention.v(torch.tanh(seen))[..., 0]
        weights = torch.softmax(energies.masked_fill(padding, -torch.inf), dim=1)
        total, context = total + weights, (weights[..., None] * values).sum(1)
        both = torch.cat([hidden, context], dim=1)
        decoder_hidden, decoder_cell = decoder.decoder_rnn(both, (decoder_hidden, decoder_cell))
        both = torch.cat([decoder_hidden, context], dim=1)
        frames = decoder.linear_projection(both).view(batch, r, N_MEL)
        yield frames, decoder.gate_layer(both)[:, 0], weights
        if mel is not None:
            frames = mel[:, :, step * r : (step + 1) * r].transpose(1, 2)


@several
def test_the_shapes_are_nvidias(r):
    """Of the prenet's first layer and the projection to frames; the gate is one value a step, and all else as ever."""
    before, after = (toy(n_frames_per_step=n).state_dict() for n in (1, r))
    assert list(before) == list(after)
    changed = {name: tuple(after[name].shape) for name in after if after[name].shape != before[name].shape}
    projection = "decoder.linear_projection.linear_layer"
    assert changed == {
        "decoder.prenet.layers.0.linear_layer.weight": (12, r * N_MEL),
        f"{projection}.weight": (r * N_MEL, 36),
        f"{projection}.bias": (r * N_MEL,),
    }
    assert (after[f"{projection}.bias"] == -5.25).all()


@several
@pytest.mark.parametrize("length", [25, 24, 1])
@torch.no_grad()
def test_teacher_forcing_is_the_loop_by_hand(r, length):
    """Of lengths that r divides and that it does not."""
    model = toy(n_frames_per_step=r, p_prenet_dropout=0.0)
    text, text_lengths, mel, mel_lengths = toy_batch()
    mel, mel_lengths = mel[:, :, :length], mel_lengths.clamp(max=length)
    values, padding = encoded(model)
    steps = -(-length // r)
    by_hand = step_by_step(model, values, padding, [(1.0, 1.0)] * steps, mel)
    frames, gates, weights = (torch.stack(each, dim=1) for each in zip(*by_hand))
    expected = frames.flatten(1, 2)[:, :length].transpose(1, 2)
    refined = expected + model.postnet(expected)
    behind = padding_mask(mel_lengths, length)
    # A step is behind the end if all of its frames are.
    no_step = F.pad(behind, (0, steps * r - length), value=True).view(4, steps, r).all(2)
    found = model(text, text_lengths, mel, mel_lengths)
    for ours, theirs in zip(found[:2], (expected, refined)):
        assert ours.shape == mel.shape
        assert (ours - theirs.masked_fill(behind[:, None], 0)).abs().max() < 1e-5
    assert (found[2] - gates.masked_fill(no_step, 1000)).abs().max() < 5e-6
    assert found[3].shape == (4, steps, 12)
    assert (found[3] - weights).abs().max() < 1e-5


@several
def test_speech_is_the_loop_by_hand(r):
    """Each clip of a batch as it would be alone: until its gate fires, all frames of that step included."""
    model, steps, stopped = stopping_toy(n_frames_per_step=r)
    assert len(set(steps)) > 2 and stopped.count(False) == 1
    text, text_lengths = texts()
    for i, spoken in enumerate(model.infer(text, text_lengths, SEEDS)):
        symbols = text[i : i + 1, : text_lengths[i]]
        padding = torch.zeros_like(symbols, dtype=torch.bool)
        with torch.no_grad():
            values = model.encoder(model.embedding(symbols).transpose(1, 2), padding, alone=True)
            masks = islice(model.decoder.prenet.draw_masks([SEEDS[i]], values), steps[i])
            frames, gates, weights = (torch.cat(each) for each in zip(*step_by_step(model, values, padding, masks)))
            mel = frames.flatten(0, 1).t()
            mel = mel + model.postnet(mel[None])[0]
        fired = gates.sigmoid() > model.decoder.gate_threshold
        assert fired.tolist() == [False] * (steps[i] - 1) + [stopped[i]]
        assert (spoken.length, spoken.stopped) == (r * steps[i], stopped[i])
        assert spoken.mel.shape == mel.shape and (spoken.mel - mel).abs().max() < 1e-4
        assert spoken.alignment.shape == weights.shape and (spoken.alignment - weights).abs().max() < 1e-4
        assert (spoken.diagonality, spoken.coverage) == pytest.approx(alignment_quality(weights), abs=1e-5)


@several
@torch.no_grad()
def test_a_clip_is_decoded_as_if_alone(r):
    """What follows its end in a batch, the rest of its last step included, does not reach it."""
    model = toy(n_frames_per_step=r, p_prenet_dropout=0.0)
    _, _, mel, lengths = toy_batch()
    values, padding = encoded(model)
    together = model.decoder(values, padding, mel + padding_mask(lengths, 25)[:, None] * torch.randn_like(mel))
    for i, length in enumerate(lengths.tolist()):
        alone = model.decoder(values[i : i + 1], padding[i : i + 1], mel[i : i + 1, :, :length])
        steps = -(-length // r)
        assert alone.gate.shape == (1, steps)
        assert (together.mel[i, :, :length] - alone.mel[0]).abs().max() < 1e-5
        assert (together.gate[i, :steps] - alone.gate[0]).abs().max() < 1e-5
        assert (together.alignments[i, :steps] - alone.alignments[0]).abs().max() < 1e-5


@several
def test_a_prediction_has_attention_and_gate_of_all_its_steps(r):
    """The last of which may be short of frames."""
    text, text_lengths, mel, lengths = toy_batch()
    predicted = toy(n_frames_per_step=r).predict(text, text_lengths, mel, lengths, SEEDS)
    assert any(length % r for length in lengths)
    for each, symbols, length in zip(predicted, text_lengths, lengths, strict=True):
        assert each.mel.shape == (N_MEL, length)
        assert (each.alignment.shape, each.gate.shape) == ((-(-length // r), symbols), (-(-length // r),))


@pytest.mark.parametrize(
    ("r", "lengths", "last_steps"),
    [(1, [1, 5, 6, 7], [0, 4, 5, 6]), (2, [1, 5, 6, 7], [0, 2, 2, 3]), (3, [1, 5, 6, 7], [0, 1, 1, 2])],
)
def test_the_gate_is_to_fire_at_the_step_with_the_last_frame(r, lengths, last_steps):
    mel, symbols, mel_lengths = torch.zeros(4, N_MEL, 7), torch.tensor([3] * 4), torch.tensor(lengths)
    gate = torch.zeros(4, -(-7 // r), requires_grad=True)
    loss = Tacotron2Loss(n_frames_per_step=r)((mel, mel, gate, None), symbols, mel, mel_lengths)
    wanted = torch.autograd.grad(loss, gate)[0] < 0  # the loss is lower with a higher gate
    assert [row.tolist().index(True) for row in wanted] == last_steps
    assert all(row[row.tolist().index(True) :].all() for row in wanted)


@several
def test_guided_attention_goes_by_steps(r):
    """Attention that advances a symbol a step is on the diagonal, though the last step lacks a frame."""
    steps = 5
    mel, lengths, symbols = torch.zeros(1, N_MEL, r * steps - 1), torch.tensor([r * steps - 1]), torch.tensor([steps])
    gate = torch.zeros(1, steps)

    def penalty(alignments):
        output = (mel, mel, gate, alignments)
        plain, guided = (Tacotron2Loss(weight, r)(output, symbols, mel, lengths).item() for weight in (0.0, 1.0))
        return guided - plain

    diagonal = torch.eye(steps)[None]
    assert penalty(diagonal) == pytest.approx(0, abs=1e-6)
    off = diagonal.flip(1)
    assert penalty(off) == pytest.approx(off_diagonal_attention(off, symbols, symbols).item(), rel=5e-6)


def test_diagonality_goes_by_steps():
    """Of a clip's own steps alone, the last one of which it fills in part."""
    alignments = torch.zeros(2, 4, 3)
    alignments[0, range(3), range(3)] = 1
    alignments[0, 3, 0] = 1  # behind its end
    alignments[1, :, 0] = 1
    batch = {"mel_lengths": torch.tensor([5, 8]), "text_lengths": torch.tensor([3, 1])}
    assert train.sum_of_diagonality(alignments, batch, 2) == pytest.approx(2)
    assert train.sum_of_diagonality(alignments, batch, 1) < 1.9
