"""O2 by apex: ours in all that can be seen. apex is a stand-in here (fake_apex)."""

import copy
import importlib
import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from common.device import pick_device
from common.precision import ApexPrecision, Precision, make_precision
from reference_curve import Training
from runs import needs_float16

FLOAT16 = replace(pick_device("cpu"), half=torch.float16)
NPU = replace(FLOAT16, type="npu")


@pytest.fixture
def apex(monkeypatch):
    """A place where apex is installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fake_apex")
    yield importlib.import_module("apex.amp")
    for name in [name for name in sys.modules if name.partition(".")[0] == "apex"]:
        del sys.modules[name]


@pytest.fixture
def both(apex):
    """Starts the reference's training by apex and by our own O2."""

    def by_apex(level, loss_scale, device, model):
        return ApexPrecision(apex, loss_scale, device, model)

    return lambda loss_scale=128.0: [Training("O2", loss_scale, FLOAT16, make) for make in (by_apex, Precision)]


def state(training: Training) -> dict:
    """What common/training/run.py puts into a checkpoint."""
    precision = training.precision
    return copy.deepcopy(
        {
            "model": precision.model_state(training.model),
            "optimizer": training.optimizer.state_dict(),
            "precision": precision.state_dict(),
        }
    )


def load(training: Training, saved: dict, losses: list[float]) -> None:
    training.precision.load_model_state(training.model, saved["model"])
    training.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))  # it would go on with the very tensors
    training.precision.load_state_dict(saved["precision"])
    training.losses = list(losses)


def same(a: Training, b: Training) -> bool:
    """Bit for bit, half-precision weights included."""
    masters, halves = zip(*((state(t)["model"], dict(t.model.named_parameters())) for t in (a, b)), strict=True)
    return a.losses == b.losses and all(
        torch.equal(masters[0][name], masters[1][name]) and torch.equal(halves[0][name], halves[1][name])
        for name in masters[0]
    )


@needs_float16
@pytest.mark.parametrize("loss_scale", [128.0, "dynamic"])
@pytest.mark.parametrize("parts", [1, 2])
def test_it_trains_as_ours(both, loss_scale, parts):
    trainings = both(loss_scale)
    for training in trainings:
        for _ in range(5):
            assert training.step(parts)
        assert all(p.dtype == torch.float16 for p in training.model.parameters())
    assert same(*trainings)


@needs_float16
def test_gradients_add_up_in_the_model_until_the_last_backward_pass(both):
    """There DistributedDataParallel averages them, in the last pass."""
    training, _ = both()
    training.precision.start_step(training.optimizer)
    training.precision.backward(training.loss(), last=False)
    once = [p.grad.clone() for p in training.model.parameters()]
    training.precision.backward(training.loss())
    assert all(torch.equal(p.grad, 2 * first) for p, first in zip(training.model.parameters(), once, strict=True))


@needs_float16
def test_both_leave_out_the_same_steps(both):
    """From a scale that overflows until it has been halved a few times."""
    trainings = both("dynamic")
    finite = []
    for training in trainings:
        training.precision.load_state_dict({"scale": 2.0**22, "good_steps": 0})
        before = state(training)["model"]
        assert not training.step()
        assert all(torch.equal(before[name], tensor) for name, tensor in state(training)["model"].items())
        assert training.precision.scale == 2.0**21
        finite.append([training.step() for _ in range(8)])
    assert finite[0] == finite[1]
    assert finite[0][-1]
    assert same(*trainings)


@needs_float16
def test_checkpoints_are_ours_and_go_on_in_either(both):
    """Float32 weights; three steps, saved and resumed, are the six made in one go."""
    whole, _ = both()
    whole.steps(3)
    saved, losses = state(whole), whole.losses[:3]
    whole.steps(6)
    assert all(tensor.dtype == torch.float32 for tensor in saved["model"].values())
    for resumed in both():
        load(resumed, saved, losses)
        assert same(resumed.steps(6), whole)


@needs_float16
def test_batch_norm_stays_in_float32(apex):
    outcomes = []
    for make in (partial(ApexPrecision, apex), partial(Precision, "O2")):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 1), torch.nn.BatchNorm1d(4), torch.nn.Tanh())
        precision = make(128.0, FLOAT16, model)
        optimizer = precision.make_optimizer(0.1)
        for _ in range(3):
            precision.start_step(optimizer)
            precision.backward(model(torch.randn(2, 3, 9).half()).float().square().mean())
            precision.unscale_gradients()
            optimizer.step()
            precision.finish_step(True)
        assert {p.dtype for p in model[1].state_dict().values()} == {torch.float32, torch.int64}
        outcomes.append(precision.model_state(model))
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[1])


def test_o2_goes_through_apex_where_it_is(apex, caplog):
    caplog.set_level(logging.INFO)
    chosen = make_precision("O2", 128.0, NPU, torch.nn.Linear(1, 1))
    assert isinstance(chosen, ApexPrecision)
    assert "precision: O2 by apex, loss scale 128" in caplog.text
    chosen.make_optimizer(1e-3)
    assert "optimizer: NpuFusedAdam of apex.optimizers" in caplog.text
    for level, device in (("O2", FLOAT16), ("O1", NPU)):
        assert type(make_precision(level, 128.0, device, torch.nn.Linear(1, 1))) is Precision


@pytest.mark.parametrize(
    ("error", "reason"),
    [("ImportError('cannot import string_classes')", "cannot import string_classes"), ("OSError", "OSError")],
)
def test_an_apex_that_does_not_load_is_passed_over_and_said(monkeypatch, tmp_path, caplog, error, reason):
    caplog.set_level(logging.INFO)
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex/__init__.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    assert type(make_precision("O2", 128.0, NPU, torch.nn.Linear(1, 1))) is Precision
    assert f"precision: O2 without apex ({reason}), loss scale 128" in caplog.text
