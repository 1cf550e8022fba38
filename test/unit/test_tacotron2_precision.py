"""Half precision follows float32, and what needs float32 stays there."""

import pytest
import torch
from tacotron2_reference import inputs, reference, reference_model
from tacotron2_toys import toy, toy_batch

from tacotron2.loss import Tacotron2Loss
from tacotron2.model import BatchNorm


def half_model(dtype=torch.bfloat16):
    """O2: everything in half precision but batch norm."""
    model = reference_model().to(dtype)
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.float()
    return model


def run(level):
    """Teacher-forced outputs of the reference's model, and its loss."""
    given = inputs()
    model = half_model() if level == "O2" else reference_model()
    with torch.autocast("cpu", torch.bfloat16, enabled=level == "O1"):
        output = model(**given)
        loss = Tacotron2Loss()(output, given["text_lengths"], given["mel"], given["mel_lengths"])
    return model, output, loss


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_half_precision_follows_float32(level):
    expected = reference()["teacher_forced"]
    _, output, loss = run(level)
    for name, actual in zip(("mel", "mel_postnet", "gate", "alignments"), output, strict=True):
        assert actual.dtype == torch.float32
        assert 0 < (actual - expected[name]).abs().max() < 0.02 * expected[name][expected[name] < 999].abs().max(), name
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected["loss"], rel=5e-3)


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_gradients_follow_those_of_float32(level):
    found = []
    for precision in ("O0", level):
        model, _, loss = run(precision)
        loss.backward()
        found.append({name: p.grad.float() for name, p in model.named_parameters()})
        assert all(p.grad.dtype == p.dtype for p in model.parameters())
    exact, half = found
    whole = torch.cat([exact[name].flatten() for name in exact])
    error = torch.cat([(half[name] - exact[name]).flatten() for name in exact])
    assert error.norm() < 0.03 * whole.norm()


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_inference_follows_float32(level):
    expected = reference()["inference"]
    model = half_model() if level == "O2" else reference_model()
    # The reference's gate comes near its threshold slowly; the numbers of a few steps are compared.
    model.decoder.gate_threshold, model.decoder.max_decoder_steps = 1.0, 11
    with torch.autocast("cpu", torch.bfloat16, enabled=level == "O1"):
        (utterance,) = model.infer(expected["text"], torch.tensor([21]))
    assert utterance.mel.dtype == utterance.alignment.dtype == torch.float32
    assert (utterance.mel - expected["mel_postnet"][0]).abs().max() < 0.02 * expected["mel_postnet"].abs().max()


def test_batch_norm_sums_gradients_in_float32():
    """Also where input and gradient lie in memory in different orders, as at the end of the postnet on a CPU."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 50, 8, generator=generator).bfloat16().transpose(1, 2).requires_grad_()
    gradient = torch.randn(4, 8, 50, generator=generator).bfloat16()
    layer = BatchNorm(8)
    layer(x).backward(gradient)
    expected = gradient.double().sum((0, 2))
    assert (layer.bias.grad.double() - expected).abs().max() < 1e-5 * expected.abs().max()


def test_attention_is_exact_float32_in_half_precision():
    """Rounded to bfloat16, the weights of a frame would not add up to 1."""
    text, text_lengths, mel, mel_lengths = toy_batch()
    for model, enabled in ((toy(), True), (toy().bfloat16(), False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            alignments = model(text, text_lengths, mel, mel_lengths)[3]
        assert alignments.dtype == torch.float32
        assert (alignments.sum(2) - 1).abs().max() < 1e-6


def test_training_mode_runs_in_half_precision():
    text, text_lengths, mel, mel_lengths = toy_batch()
    model = half_model().train()
    assert model.encoder.convolutions[0][1].running_mean.dtype == torch.float32
    model = toy().bfloat16().train()
    output = model(text, text_lengths, mel, mel_lengths)
    Tacotron2Loss(1.0)(output, text_lengths, mel, mel_lengths).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
