"""The conditions of WaveGlow's couplings at frame rate are those at the rate of the groups."""

import pytest
import torch

from common.device import pick_device
from common.layers.channels_last import use_channels_last
from common.layers.conv import Upsampling
from runs import make_run, model_of, start
from waveglow.conditioning import interpolation
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow
from waveglow.train import make_task, start_as_interpolation

FRAMES = 12
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}


def toy(reach=2, n_group=8):
    torch.manual_seed(0)
    WN_config = dict(n_layers=2, n_channels=8, kernel_size=3)
    model = WaveGlow(5, 4, n_group, 2, 2, WN_config, hop_length=32, upsample_kernel=32 * reach)
    for wn in model.WN:  # zeros at first, which would hide the conditions
        torch.nn.init.normal_(wn.end.weight, std=0.05)
    return model


def fix_upsampling(model):
    """As an interpolation, of which each band has its own scale."""
    upsample = model.upsample
    mean, std = torch.linspace(-1, 1, 5), torch.linspace(0.5, 2, 5)
    weight, bias = interpolation(mean, std, upsample.kernel_size[0], upsample.stride[0])
    upsample.load_state_dict({"weight": weight, "bias": bias})
    upsample.requires_grad_(False)
    assert upsample.interpolates()


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


def test_a_fixed_upsampling_stays_as_it_begins(config, corpus, tmp_path):
    options = dict(interpolating_start=True, fixed_upsampling=True)
    run, _ = start(config[1], corpus, tmp_path, max_steps=3, **options)
    fresh = make_run(config[1], tmp_path / "fresh", **options)
    make_task(fresh, str(corpus))
    before, after = model_of(fresh), model_of(run)
    assert {name for name in before if torch.equal(before[name], after[name])} == {"upsample.weight", "upsample.bias"}
    finetuned = make_run(config[1], tmp_path / "b", checkpoint_path=str(run.path()), keep_optimizer=True, **options)
    finetuned.start("no")
    ours, theirs = (r.optimizer.state_dict()["state"] for r in (finetuned, run))
    assert theirs and all(torch.equal(ours[i]["exp_avg"], theirs[i]["exp_avg"]) for i in theirs)


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


@pytest.mark.parametrize("kernel_size", [16, 24, 32, 64])
def test_the_interpolating_start_interpolates(kernel_size):
    """Between frames on a line (with less than two hops in steps), standardized, a hop late."""
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0])
    upsample = Upsampling(2, kernel_size, stride=16)
    weight, bias = interpolation(mean, std, kernel_size, 16)
    upsample.load_state_dict({"weight": weight, "bias": bias})
    mel = torch.randn(1, 2, 6)
    standardized = (mel - mean[:, None]) / std[:, None]
    y = upsample(mel)[:, :, 16 : 6 * 16]
    if kernel_size < 32:
        expected = standardized[:, :, 1:].repeat_interleave(16, dim=2)
    else:
        share = torch.arange(16) / 16
        expected = standardized[:, :, :-1, None] * (1 - share) + standardized[:, :, 1:, None] * share
        expected = expected.flatten(2)
    assert torch.allclose(y, expected, atol=1e-6)
    assert weight.shape == (2, 2, kernel_size)


def test_a_band_with_nothing_in_it_is_not_amplified(config, tmp_path):
    """As above what a telephone hears: its values are all the same."""
    mel = torch.randn(6, 500)
    mel[3] = -11.5
    run = make_run(config[1], tmp_path)
    start_as_interpolation(run, Segments([mel[:, :250], mel[:, 250:]]))
    largest = run.model.upsample.weight.diagonal()[256]
    assert largest[3].item() == pytest.approx(10)
    assert torch.allclose(largest[[0, 1, 2, 4, 5]], torch.ones(5), rtol=0.2)


class Segments(list):
    """Stands in for a training's: looked up by epoch and clip."""

    clips = property(lambda self: self)

    def __getitem__(self, key):
        return {"mel": super().__getitem__(key[1])}


@pytest.mark.parametrize("amp", ["O0", "O2"])
def test_a_training_begins_with_it(config, corpus, tmp_path, amp):
    """By the training segments; the other weights are as drawn."""
    run = make_run(config[1], tmp_path, interpolating_start=True, amp=amp)
    before = model_of(run)
    task = make_task(run, str(corpus))
    after = model_of(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"upsample.weight", "upsample.bias"}
    batches = task.batches(0, 0)
    segments = [mel for _ in range(task.clips_per_epoch // 4) for mel in next(batches)["mel"]]
    std, mean = torch.std_mean(torch.cat(segments, dim=1), dim=1)
    slope = 1 / after["upsample.weight"].diagonal()[256]
    assert torch.allclose(slope, std, rtol=1e-5)
    assert torch.allclose(-after["upsample.bias"] * slope, mean, rtol=1e-5)
