"""The moving average of the weights: what it is, who uses it, and that it survives a resume."""

import pytest
import torch

from common.checkpoints import native
from common.checkpoints.interchange import read
from common.device import pick_device
from common.precision import Precision
from common.training.averaging import WeightAverage
from runs import make_run, model_of, same, start
from waveglow.vocoder import Vocoder

CPU = pick_device("cpu")


def test_it_is_the_exponential_average():
    """Of a weight that is 0 at first and then 1, 2, 3, ...; the decay of the first steps is that of fewer."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = WeightAverage(0.5, model, Precision("O0", 1.0, CPU, model))
    expected = 0.0
    for step in range(1, 20):
        torch.nn.init.constant_(model.weight, step)
        average.update(step)
        decay = min(0.5, step / (step + 10))
        expected = decay * expected + (1 - decay) * step
        assert average.weights["weight"].item() == pytest.approx(expected)
    assert expected == pytest.approx(18, abs=1e-3)  # with a decay of 1/2 the average lags by a step


def test_statistics_of_batch_norm_are_averaged_and_counted():
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(0.5, model, Precision("O0", 1.0, CPU, model))
    model.running_mean += 1
    model.num_batches_tracked += 7
    average.update(100)
    assert average.weights["running_mean"].item() == 0.5
    assert average.weights["num_batches_tracked"].item() == 7


@pytest.mark.parametrize("amp", ["O0", "O1", "O2"])
def test_a_resumed_run_has_the_same_average(config, corpus, tmp_path, amp):
    options = dict(amp=amp, ema_decay=0.9)
    whole, _ = start(config[1], corpus, tmp_path / "whole", max_steps=6, **options)
    start(config[1], corpus, tmp_path / "parts", max_steps=3, **options)
    parts, _ = start(config[1], corpus, tmp_path / "parts", max_steps=6, **options)
    assert same(parts.average.weights, whole.average.weights)
    assert same(model_of(parts), model_of(whole))
    assert not same(whole.average.weights, model_of(whole))


@pytest.mark.parametrize("amp", ["O0", "O2"])
def test_training_does_not_depend_on_it(config, corpus, tmp_path, amp):
    """Also not by way of the validation, which puts it in the model's place."""
    plain, _ = start(config[1], corpus, tmp_path / "a", max_steps=6, amp=amp)
    averaged, _ = start(config[1], corpus, tmp_path / "b", max_steps=6, amp=amp, ema_decay=0.9, iters_per_validation=2)
    assert averaged.progress.losses == plain.progress.losses
    assert same(model_of(averaged), model_of(plain))


def test_validation_synthesis_and_finetuning_take_it(config, corpus, tmp_path):
    run, summary = start(config[1], corpus, tmp_path / "out", max_steps=4, ema_decay=0.9)
    path = tmp_path / "out" / "waveglow_4"
    average = run.average.weights
    assert same(read(path).weights, average)
    assert not same(native.load(path)["model"], average)
    bias = average["WN.1.end.bias"]
    assert not torch.equal(bias, run.model.WN[1].end.bias)
    vocoder = Vocoder(path, CPU)
    assert torch.equal(vocoder.model.convinv[0].conv.weight, average["convinv.0.conv.weight"])

    finetuned = make_run(config[1], tmp_path / "finetuned", checkpoint_path=str(path), ema_decay=0.9)
    finetuned.start("auto")
    assert same(model_of(finetuned), average)
    assert same(finetuned.average.weights, average)

    again, validated = start(config[1], corpus, tmp_path / "again", max_steps=1, checkpoint_path=str(path))
    assert again.progress.validation_losses[-2][1] == pytest.approx(summary.validation_loss)
    assert validated.iteration == 5


def test_a_skipped_step_leaves_it_alone(config, corpus, tmp_path):
    def spoil(task, run):
        original = task.loss
        task.loss = lambda model, batch: original(model, batch) * (float("nan") if model.training else 1)

    run, _ = start(config[1], corpus, tmp_path, max_steps=3, ema_decay=0.9, spoil=spoil)
    assert same(run.average.weights, model_of(make_run(config[1], tmp_path / "fresh")))
