"""The conditions of WaveGlow's couplings at frame rate are those at the rate of the groups."""

import pytest
import torch
from conditioned_toys import fix_upsampling, toy

from common.device import pick_device
from common.layers.channels_last import use_channels_last
from waveglow.loss import WaveGlowLoss

FRAMES = 12
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}


def outcome(model, composed, monkeypatch, amp="float32", samples=FRAMES * 32):
    """The loss and the gradients of all parameters and of the mel spectrogram."""
    monkeypatch.setattr(model, "_pays_to_compose", lambda *_: composed)
    torch.manual_seed(1)
    mel, audio = torch.randn(3, 5, FRAMES, requires_grad=True), torch.rand(3, samples) - 0.5
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp == "bfloat16"):
        loss = WaveGlowLoss()(model(mel, audio))
    loss.backward()
    return [loss.detach(), mel.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("amp", TOLERANCE)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("reach", [1, 2, 4])
@pytest.mark.parametrize("samples", [FRAMES * 32, FRAMES * 32 - 8, 5 * 32 + 16])
@pytest.mark.parametrize("fixed", [False, True])
def test_both_rates_train_alike(reach, channels_last, amp, samples, fixed, monkeypatch):
    """Loss and gradients, also where the last frame is not filled with groups."""
    model = toy(reach)
    if fixed:
        fix_upsampling(model)
    if channels_last:
        use_channels_last(model, pick_device("cpu"))
    plain, composed = (outcome(model, which, monkeypatch, amp, samples) for which in (False, True))
    for one, other in zip(plain, composed, strict=True):
        assert (one - other).norm() <= TOLERANCE[amp] * one.norm()
    assert plain[1].norm() > 0


@pytest.mark.parametrize("fixed", [False, True])
def test_both_rates_give_the_same_in_half_precision(fixed, monkeypatch):
    """Of a model that is in it as a whole, as at O2."""
    model = toy()
    if fixed:
        fix_upsampling(model)
    model.bfloat16()
    mel, audio = torch.randn(3, 5, FRAMES).bfloat16(), (torch.rand(3, FRAMES * 32) - 0.5).bfloat16()
    found = []
    for composed in (False, True):
        monkeypatch.setattr(model, "_pays_to_compose", lambda *_, composed=composed: composed)
        z, *_ = model(mel, audio)
        assert z.dtype == torch.bfloat16
        found.append(z.float())
    assert (found[0] - found[1]).norm() <= TOLERANCE["bfloat16"] * found[0].norm()


def test_an_interpolation_that_is_trained_has_gradients_at_all_taps(monkeypatch):
    """Not at the two alone that tell a line, since training could make any taps of it."""
    model = toy()
    fix_upsampling(model)
    model.upsample.requires_grad_(True)
    plain, composed = (outcome(model, which, monkeypatch) for which in (False, True))
    for one, other in zip(plain, composed, strict=True):
        assert (one - other).norm() <= TOLERANCE["float32"] * one.norm()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("reach", [1, 2, 4])
@pytest.mark.parametrize("fixed", [False, True])
def test_fused_conditions_give_the_same_audio(reach, channels_last, fixed, monkeypatch):
    model = toy(reach).eval()
    if fixed:
        fix_upsampling(model)
    mel = torch.randn(2, 5, FRAMES)
    noise = [torch.randn(shape) for shape in model.noise_shapes(2, FRAMES)]
    monkeypatch.setattr(model, "_pays_to_compose", lambda *_: False)
    expected = model.infer(mel, 1.0, noise)
    model.fuse()
    model.fuse()  # twice is once
    assert model.is_composed
    if channels_last:
        use_channels_last(model, pick_device("cpu"))
    assert torch.allclose(model.infer(mel, 1.0, noise), expected, atol=1e-5)
    changed = [n + 0 for n in noise]
    assert not torch.allclose(model.infer(mel + 1, 1.0, changed), expected, atol=1e-2)  # the conditions count


def test_taps_rounded_to_half_precision_still_lie_on_lines():
    """As those of a voice are stored: what is heard differs by no more than the rounding."""
    model = toy(n_group=16).eval()
    fix_upsampling(model)
    mel, noise = torch.randn(2, 5, FRAMES), [torch.randn(shape) for shape in model.noise_shapes(2, FRAMES)]
    exact = model.infer(mel, 1.0, noise)
    model.upsample.half().float()
    rounded = model.infer(mel, 1.0, noise)
    model.fuse()
    assert model.on_lines
    difference = lambda other: (model.infer(mel, 1.0, noise) - other).abs().max()  # noqa: E731
    assert difference(rounded) <= 3e-6
    assert difference(exact) <= 2e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_interpolation_is_known_by_its_taps(dtype):
    model = toy()
    assert not model.upsample.interpolates()
    fix_upsampling(model)
    model.upsample.to(dtype)
    assert model.upsample.interpolates()
    with torch.no_grad():
        model.upsample.weight[1, 1, 40] *= 1.1
    assert not model.upsample.interpolates()
    fix_upsampling(model)
    with torch.no_grad():
        model.upsample.weight[1, 2, 40] = 1e-3
    assert not model.upsample.interpolates()


def test_recomputed_couplings_take_the_plain_way(monkeypatch):
    """They get tensors alone, of which autograd knows; the gradients are the same."""
    model = toy()
    expected = outcome(model, False, monkeypatch)
    model.recompute = True
    for one, other in zip(expected, outcome(model, True, monkeypatch), strict=True):
        assert (one - other).norm() <= 3e-6 * one.norm()


def test_without_gradients_nothing_is_recomputed(monkeypatch):
    """Then the way with fewer multiplications is free again."""
    model = toy()
    model.recompute, asked = True, []
    conditioning = model._conditioning
    monkeypatch.setattr(model, "_conditioning", lambda *given, plainly: asked.append(plainly) or conditioning(
        *given, plainly=plainly))  # fmt: skip
    mel, audio = torch.randn(1, 5, FRAMES), torch.rand(1, FRAMES * 32) - 0.5
    model(mel, audio)
    with torch.no_grad():
        model(mel, audio)
        model.infer(mel)
    assert asked == [True, False, False]
