"""Inference: the reference's numbers, and every clip of a batch as if it were alone."""

import pytest
import torch
from tacotron2_reference import reference, reference_model
from tacotron2_toys import SEEDS, gates, stopping_toy, texts, toy, toy_batch

from tacotron2 import decoding
from tacotron2.alignment import alignment_quality
from tacotron2.model import padding_mask


def test_a_clip_equals_the_reference():
    expected = reference()["inference"]
    model = reference_model()
    (utterance,) = model.infer(expected["text"], torch.tensor([expected["text"].shape[1]]))
    assert utterance.length == expected["mel"].shape[2]
    assert utterance.stopped
    assert (utterance.mel - expected["mel_postnet"][0]).abs().max() < 2e-5
    assert (utterance.alignment - expected["alignments"][0]).abs().max() < 3e-6
    padding = torch.zeros_like(expected["text"], dtype=torch.bool)
    with torch.no_grad():
        values = model.encoder(model.embedding(expected["text"]).transpose(1, 2), padding, alone=True)
        decoded, lengths, stopped = decoding.infer(model.decoder, values, padding, [0])
    assert (decoded.mel - expected["mel"]).abs().max() < 3e-6
    assert (decoded.gate - expected["gate"][..., 0]).abs().max() < 3e-6
    assert (lengths.tolist(), stopped.tolist()) == ([11], [True])


@pytest.mark.parametrize("p_prenet_dropout", [0.0, 0.5])
def test_a_clip_in_a_batch_is_what_it_is_alone(p_prenet_dropout):
    model, _, _ = stopping_toy(p_prenet_dropout=p_prenet_dropout)
    text, text_lengths = texts()
    together = model.infer(text, text_lengths, SEEDS)
    for i, (length, seed) in enumerate(zip(text_lengths, SEEDS, strict=True)):
        (alone,) = model.infer(text[i : i + 1, :length], length[None], [seed])
        assert together[i].length == alone.length
        assert together[i].stopped == alone.stopped
        assert together[i].alignment.shape == alone.alignment.shape == (alone.length, length)
        assert (together[i].mel - alone.mel).abs().max() < 2e-5
        assert (together[i].alignment - alone.alignment).abs().max() < 2e-5
        assert together[i].coverage == pytest.approx(alone.coverage, abs=3e-6)


def test_each_clip_stops_at_its_own_gate_or_at_the_limit():
    model, lengths, stopped = stopping_toy()
    assert len(set(lengths)) > 2
    assert stopped.count(False) == 1
    utterances = model.infer(*texts(), SEEDS)
    assert [utterance.length for utterance in utterances] == lengths
    assert [utterance.stopped for utterance in utterances] == stopped
    for utterance in utterances:
        assert utterance.mel.shape == (6, utterance.length)
        assert utterance.stopped or utterance.length == 40


def test_decoding_ends_when_the_last_clip_has_stopped(monkeypatch):
    model = toy()
    model.decoder.gate_threshold = gates(model).amax(1).min().item() - 1e-3
    steps = []
    monkeypatch.setattr(model.decoder, "output", counted(model.decoder.output, steps))
    utterances = model.infer(*texts(), SEEDS)
    assert all(utterance.stopped for utterance in utterances)
    assert len(steps) == max(utterance.length for utterance in utterances)


def counted(function, calls):
    def run(*args):
        calls.append(args)
        return function(*args)

    return run


def test_the_padding_of_a_batch_does_not_matter():
    model, _, _ = stopping_toy()
    text, text_lengths = texts()
    wide = torch.cat([text, torch.full((4, 5), 3)], dim=1).masked_fill(padding_mask(text_lengths, 17), 9)
    for one, other in zip(model.infer(text, text_lengths, SEEDS), model.infer(wide, text_lengths, SEEDS), strict=True):
        assert one.length == other.length
        assert (one.mel - other.mel).abs().max() < 2e-5


def test_seeds_decide():
    model = toy(max_decoder_steps=80, gate_threshold=0.999)
    first = model.infer(*texts(), SEEDS)
    again = model.infer(*texts(), SEEDS)
    changed = model.infer(*texts(), [*SEEDS[:3], 99])
    for i in range(4):
        assert torch.equal(first[i].mel, again[i].mel)
        assert torch.equal(first[i].mel, changed[i].mel) == (i < 3)


def test_without_seeds_torchs_generator_decides():
    model = toy(gate_threshold=0.999)
    text, text_lengths = texts()[0][:1].expand(2, -1), torch.tensor([12, 12])
    torch.manual_seed(3)
    first, other = model.infer(text, text_lengths)
    different, _ = model.infer(text, text_lengths)
    torch.manual_seed(3)
    again, _ = model.infer(text, text_lengths)
    assert torch.equal(first.mel, again.mel)
    assert not torch.equal(first.mel, other.mel)
    assert not torch.equal(first.mel, different.mel)


def test_masks_keep_the_share_and_the_mean():
    prenet = toy(prenet_dim=500, p_prenet_dropout=0.3).decoder.prenet
    masks = torch.stack([mask for _, mask in zip(range(70), prenet.draw_masks([1, 2], torch.zeros(1)))])
    assert masks.shape == (70, 2, 2, 500)
    assert (masks == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert masks.max().item() == pytest.approx(1 / 0.7)
    assert len({row.numpy().tobytes() for row in masks.flatten(0, 2)}) == 280


def test_misuse_is_refused():
    with pytest.raises(RuntimeError, match="eval"):
        toy().train().infer(*texts())
    with pytest.raises(RuntimeError, match="eval"):
        toy().train().predict(*toy_batch(), SEEDS)
    with pytest.raises(ValueError, match="no symbols"):
        toy().infer(texts()[0], torch.tensor([12, 7, 9, 0]))


@pytest.mark.parametrize("n_frames_per_step", [1, 3])
def test_a_prediction_is_the_forward_pass_of_each_clip_alone(n_frames_per_step):
    """Refined by the postnet, with its own gate and alignment, and judged as speech is."""
    model = toy(p_prenet_dropout=0.0, n_frames_per_step=n_frames_per_step)
    text, text_lengths, mel, mel_lengths = toy_batch()
    predicted = model.predict(text, text_lengths, mel, mel_lengths, SEEDS)
    for i, (symbols, frames) in enumerate(zip(text_lengths.tolist(), mel_lengths.tolist(), strict=True)):
        alone = text[i : i + 1, :symbols], torch.tensor([symbols]), mel[i : i + 1, :, :frames], torch.tensor([frames])
        with torch.no_grad():
            _, refined, gate, alignment = model(*alone)
        utterance, quality = predicted[i], alignment_quality(alignment[0])
        assert (utterance.length, utterance.stopped) == (frames, True)
        for ours, theirs in (
            (utterance.mel, refined[0]), (utterance.gate, gate[0].sigmoid()), (utterance.alignment, alignment[0]),
        ):  # fmt: skip
            assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 2e-5
        assert (utterance.diagonality, utterance.coverage) == pytest.approx(quality, abs=1e-5)


def test_a_spoken_clip_is_judged_by_its_alignment():
    model, _, _ = stopping_toy()
    for utterance in model.infer(*texts(), SEEDS):
        assert (utterance.diagonality, utterance.coverage) == alignment_quality(utterance.alignment)
        assert len(utterance.gate) == len(utterance.alignment) == utterance.length
        fires = utterance.gate > model.decoder.gate_threshold
        assert not fires[:-1].any() and bool(fires[-1]) == utterance.stopped
