"""The conditions of WaveGlow's couplings at frame rate are those at the rate of the groups."""

import pytest
import torch

from common.config import NpuConfig
from common.device import pick_device
from common.layers.channels_last import use_channels_last
from common.layers.conv import Upsampling
from common.layers.npu import patch_for_npu
from runs import make_run, model_of, start
from waveglow.conditioning import FrameRate, GroupRate, interpolation
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


def test_weights_that_would_grow_much_are_not_composed():
    """NVIDIA's WaveGlow would take half a billion."""
    model = WaveGlow(2, 2, 8, 4, 2, dict(n_layers=1, n_channels=2, kernel_size=3), hop_length=256, upsample_kernel=1024)
    model.fuse()
    assert not model.is_composed


@pytest.mark.parametrize(
    ("reach", "fixed", "composed"),
    [(1, False, True), (4, False, True), (5, False, False), (8, True, True), (9, True, False), (1.5, False, False)],
)
def test_composed_weights_are_twice_as_many_at_most(reach, fixed, composed):
    """A cond_layer sees 8 samples of a band. Composed, it sees so many frames for each of 4 groups, or on 2 lines."""
    model = toy(reach=1)
    model.upsample = Upsampling(5, int(32 * reach), 32)
    if fixed:
        fix_upsampling(model)
    before = model.WN[0].cond_layer.effective_weight().numel()
    model.fuse()
    assert (model.is_composed, model.on_lines) == (composed, fixed)
    after = model.WN[0].cond_layer.weight.numel()
    assert after == before * (reach * (2 if fixed else 4) / 8 if composed else 1) <= 2 * before


@pytest.mark.parametrize(
    ("kernel", "on_lines", "groups"),
    [
        (1024, False, 20_480),  # composing: 4 * 256 * 80 of each weight; then 4 frames in the place of 8 samples
        (512, False, 6_826),  # 2 * 256 * 80, and 2 frames
        (512, True, 4),  # 2 lines of 2 frames, for each frame of 32 groups
        (1920, False, None),  # no whole number of frames
        (2048, False, None),  # 8 frames, which are no fewer
    ],
)
def test_the_way_with_fewer_multiplications_is_taken(kernel, on_lines, groups):
    """By NVIDIA's sizes: from so many groups of samples on."""
    model = WaveGlow(80, 1, 8, 4, 2, dict(n_layers=1, n_channels=2, kernel_size=3), upsample_kernel=kernel)
    if groups is None:
        assert not model._pays_to_compose(10**9, on_lines)
    else:
        assert not model._pays_to_compose(groups, on_lines)
        assert model._pays_to_compose(groups + 1, on_lines)


def test_with_a_fixed_interpolation_a_few_frames_are_enough():
    model = WaveGlow(80, 1, 8, 4, 2, dict(n_layers=1, n_channels=2, kernel_size=3), upsample_kernel=512)
    start = interpolation(torch.zeros(80), torch.ones(80), 512, 256)
    model.upsample.load_state_dict(dict(zip(("weight", "bias"), start)))
    mel = torch.randn(1, 80, 4)
    assert isinstance(model._conditioning(mel, 4 * 32, False), GroupRate)  # as long as it is trained, it may become any
    model.upsample.requires_grad_(False)
    condition = model._conditioning(mel, 4 * 32, False)
    assert isinstance(condition, FrameRate) and condition.place is not None


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


def test_the_detour_over_the_host_stays():
    """Where the port runs the upsampling on the host, nothing is composed with it."""
    model = toy()
    assert model._pays_to_compose(10**6, on_lines=False)
    patch_for_npu(model, NpuConfig(conv_transpose_on_cpu="on"), pick_device("cpu"))
    assert not model._pays_to_compose(10**6, on_lines=False)
    model.fuse()
    assert not model.is_composed


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
