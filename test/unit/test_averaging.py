"""The moving average of the weights: what it is, who uses it, and that it survives a resume."""

import pytest
import torch

from common.checkpoints import native
from common.checkpoints.interchange import read
from common.device import pick_device
from common.precision import Precision
from common.program import UserError
from common.training import averaging
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


@pytest.mark.parametrize("lists", [True, False])
def test_statistics_of_batch_norm_are_averaged_and_counted(monkeypatch, lists):
    """Also on a card that has no operators on lists."""
    monkeypatch.setattr(averaging, "has_foreach", lambda device: lists)
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(0.5, model, Precision("O0", 1.0, CPU, model))
    model.weight.data += 4
    model.running_mean += 1
    model.num_batches_tracked += 7
    average.update(100)
    assert average.weights["running_mean"].item() == 0.5
    assert average.weights["weight"].item() == 3
    assert average.weights["num_batches_tracked"].item() == 7


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_it_stands_in_the_models_place_for_a_while(level):
    """And the model has its own weights again, exactly, also where what is done with it fails."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    precision = Precision(level, 1.0, CPU, model)
    average = WeightAverage(0.5, model, precision)
    average.load({name: torch.full_like(tensor, 3) for name, tensor in precision.model_state(model).items()})
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = {name: tensor.dtype for name, tensor in own.items()}
    with pytest.raises(KeyError), average.in_place():
        assert all((tensor == 3).all() for tensor in model.state_dict().values())
        assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == kinds
        model[1].running_mean += 1
        raise KeyError
    assert same(model.state_dict(), own)
    assert all((tensor == 3).all() for tensor in average.weights.values())
    average.restart()
    assert same(average.weights, precision.model_state(model))
    average.weights["0.weight"] += 1
    assert same(model.state_dict(), own)


@pytest.mark.parametrize("amp", ["O0", "O1", "O2"])
def test_a_resumed_run_has_the_same_average(config, corpus, tmp_path, amp):
    options = dict(amp=amp, ema_decay=0.9)
    whole, _ = start(config[1], corpus, tmp_path / "whole", max_steps=6, **options)
    start(config[1], corpus, tmp_path / "parts", max_steps=3, **options)
    parts, _ = start(config[1], corpus, tmp_path / "parts", max_steps=6, **options)
    assert same(parts.average.weights, whole.average.weights)
    assert same(model_of(parts), model_of(whole))
    assert not same(whole.average.weights, model_of(whole))


def test_a_checkpoint_that_has_lost_it_is_refused(config, corpus, tmp_path):
    start(config[1], corpus, tmp_path, max_steps=1, ema_decay=0.9)
    state = native.load(tmp_path / "waveglow_1")
    del state["average"]
    native.save(tmp_path / "waveglow_1", state)
    with pytest.raises(
        UserError, match=r"waveglow_1 lacks the average of the weights .*: --checkpoint_path=.*waveglow_1 "
    ):
        start(config[1], corpus, tmp_path, max_steps=2, ema_decay=0.9)


@pytest.mark.parametrize("amp", ["O0", "O1", "O2"])
def test_a_training_averages_its_masters(config, corpus, tmp_path, amp):
    """In float32, at every precision: after the first step 10 parts in 11 are its."""
    before = model_of(make_run(config[1], tmp_path / "fresh", amp=amp))
    run, _ = start(config[1], corpus, tmp_path / "out", max_steps=1, amp=amp, ema_decay=0.9)
    after = model_of(run)
    expected = {name: before[name] + (after[name] - before[name]) * 10 / 11 for name in before}
    torch.testing.assert_close(run.average.weights, expected)
    assert any((after[name] - expected[name]).abs().max() > 1e-5 for name in before)


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
