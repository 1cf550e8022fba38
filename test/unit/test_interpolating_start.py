"""WaveGlow's upsampling begins as an interpolation: by its taps and bands, in a training, and fixed as it began."""

import pytest
import torch

from common.config_reading import from_dict
from common.layers.conv import Upsampling
from conftest import toy_config
from runs import make_run, model_of, start
from waveglow.conditioning import interpolation
from waveglow.config import Config, build_model
from waveglow.train import make_task, start_as_interpolation


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
def test_a_training_begins_with_an_interpolation(config, corpus, tmp_path, amp):
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


@pytest.mark.parametrize("fixed", [False, True])
def test_a_fixed_upsampling_is_not_trained_and_all_else_is(fixed):
    model = build_model(from_dict(Config, toy_config() | {"train_config": {"fixed_upsampling": fixed}}))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    everything = {name for name, _ in model.named_parameters()}
    assert everything - trained == ({"upsample.weight", "upsample.bias"} if fixed else set())
