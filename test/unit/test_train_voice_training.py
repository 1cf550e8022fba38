"""A training for a given time: its steps, losses, rates and signals."""

import logging
import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graphed_steps import check_graphed_step

from common.checkpoints.interchange import read
from common.cuda_graph import Stream
from conftest import toy_config
from runs import CPU, make_run, needs_fused_adam
from tools.voice import graphed_step as graphed_module
from tools.voice import timed_training
from tools.voice.timed_training import learning_rate, recent_loss

GO_ON = SimpleNamespace(requested=0)


@pytest.fixture
def run(tmp_path):
    return make_run(toy_config(), tmp_path, ema_decay=0.9, learning_rate=0.5, warmup_steps=4)


def clock(monkeypatch, *times):
    looks = iter(times)
    monkeypatch.setattr(timed_training, "time", SimpleNamespace(time=lambda: next(looks)))


def steps_of(run, losses=None):
    """A step that leaves a gradient of 1 and gives the losses one after the other; (rates, averages) as they were."""
    seen = []
    given = iter(losses or ())

    def step():
        for parameter in run.precision.model_params:
            parameter.grad = torch.ones_like(parameter)
        seen.append(run.optimizer.param_groups[0]["lr"])
        return torch.tensor(next(given, 1.0)), torch.tensor(1.0)

    step.rates = seen
    return step


@needs_fused_adam
def test_steps_are_made_until_the_time_is_over(run, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    clock(monkeypatch, 100.0, 100.0, 110.0, 130.0, 139.9, 140.0)
    step, updates = steps_of(run, [4.0, 3.0, 2.0, 1.0]), []
    update = run.average.update
    monkeypatch.setattr(run.average, "update", lambda number: updates.append(number) or update(number))
    before = [each.detach().clone() for each in run.precision.model_params]
    timed_training.train(run, step, Stream(CPU, first=True), 140.0, GO_ON)
    assert (run.progress.iteration, run.progress.losses) == (4, [4.0, 3.0, 2.0, 1.0])
    assert updates == [1, 2, 3, 4]
    shares = [0.25, 0.5, 0.75 * (1 + math.cos(math.pi / 2)) / 2, (1 + math.cos(math.pi * (39.9 / 40 - 0.5) / 0.5)) / 2]
    assert step.rates == pytest.approx([0.5 * share for share in shares])
    assert all(not torch.equal(*both) for both in zip(before, run.precision.model_params, strict=True))
    assert caplog.messages[-1] == f"waveglow: 4 steps, loss 2.5000, {run.path()}"
    found = read(run.path(), "waveglow")
    assert (found.iteration, found.progress["losses"]) == (4, [4.0, 3.0, 2.0, 1.0])
    assert found.config["waveglow_config"]["n_flows"] == 2
    for name, weight in run.average.weights.items():
        assert torch.equal(found.weights[name], weight)


@needs_fused_adam
def test_a_signal_ends_it_before_its_time(run, monkeypatch):
    clock(monkeypatch, *range(100))
    stop = SimpleNamespace(requested=0)
    inner = steps_of(run)

    def step():
        stop.requested = 15 if run.progress.iteration == 2 else 0
        return inner()

    timed_training.train(run, step, Stream(CPU, first=True), 90.0, stop)
    assert run.progress.iteration == 3 and run.path().exists()


@needs_fused_adam
@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (1.0, np.inf)])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, monkeypatch, loss, norm):
    clock(monkeypatch, *range(1, 100))
    run = make_run(toy_config(), tmp_path, ema_decay=0.9)
    before = [parameter.detach().clone() for parameter in run.precision.model_params]

    def step():
        for parameter in run.precision.model_params:
            parameter.grad = torch.full_like(parameter, np.nan)
        return torch.tensor(loss), torch.tensor(norm)

    timed_training.train(run, step, Stream(CPU, first=True), 5, SimpleNamespace(requested=False))
    assert run.progress.iteration > 1
    assert all(map(torch.equal, before, run.precision.model_params))


@needs_fused_adam
def test_losses_are_read_20_at_a_time_and_told_each_quarter_of_a_minute(run, monkeypatch, caplog):
    """One after the other, none twice."""
    caplog.set_level(logging.INFO)
    clock(monkeypatch, 0.0, *(i * 0.5 for i in range(91)), 1000.0)
    losses = [float(i) for i in range(91)]
    timed_training._train(run, steps_of(run, losses), 45.2, GO_ON)
    assert run.progress.losses == losses
    said = [message for message in caplog.messages if message.startswith("waveglow, ")]
    # After 40 steps 19.5 s have gone by, after 80 39.5.
    assert said == [
        f"waveglow, 20 s: 40 steps, loss {sum(range(40)) / 40:.4f}",
        f"waveglow, 40 s: 80 steps, loss {sum(range(80)) / 80:.4f}",
    ]


def test_the_loss_that_is_told_is_that_of_the_last_200_steps():
    run = SimpleNamespace(progress=SimpleNamespace(losses=[9.0] * 100 + [1.0, 3.0] * 100))
    assert recent_loss(run) == 2.0
    run.progress.losses = []
    assert math.isnan(recent_loss(run))


@pytest.mark.parametrize(
    ("done", "steps", "share"),
    [(0.0, 0, 0.25), (0.1, 2, 0.75), (0.5, 3, 1.0), (0.5, 99, 1.0), (0.75, 99, 0.5), (1.0, 99, 0.0), (0.75, 1, 0.25)],
)
def test_the_rate_rises_stays_and_falls(done, steps, share):
    config = SimpleNamespace(train_config=SimpleNamespace(learning_rate=2.0, warmup_steps=4))
    run = SimpleNamespace(config=config, progress=SimpleNamespace(iteration=steps))
    assert learning_rate(run, done) == pytest.approx(2.0 * share, abs=1e-12)
    config.train_config.warmup_steps = 0
    assert learning_rate(run, 0.1) == 2.0


# ---- a step ----


def test_gradients_of_a_step_are_its_own_clipped_and_of_its_precision(run):
    """Of each batch anew, in the same memory; the norm is that before."""
    run.config.train_config.grad_clip = 0.5
    inside = []

    @contextmanager
    def autocast():
        inside.append("in")
        yield
        inside.append("out")

    weights = run.precision.model_params
    run.precision.autocast = autocast

    def loss(batch):
        inside.append("loss")
        return (batch["x"] * weights[0].flatten()[0]).sum()

    first = {"x": torch.ones(2)}
    step = graphed_module.graphed_step(run, Stream(CPU, first=True), loss, first)
    memory = weights[0].grad
    for values in ([3.0, 4.0], [0.1, 0.2], [3.0, 4.0]):
        value, norm = step({"x": torch.tensor(values)})
        total = sum(values)
        assert norm.item() == pytest.approx(total)
        assert weights[0].grad.flatten()[0].item() == pytest.approx(min(total, 0.5), rel=1e-4)
        assert value.item() == pytest.approx(total * weights[0].flatten()[0].item())
        assert not value.requires_grad and weights[0].grad is memory
    assert inside == ["in", "loss", "out"] * 3
    assert first["x"].tolist() == [1, 1]


def test_a_step_is_the_plain_one(tmp_path):
    check_graphed_step(tmp_path, CPU)
