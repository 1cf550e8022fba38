"""A training for a given time, with the configuration's optimizer, clipping and moving average."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.checkpoints import native
from common.cuda_graph import Stream
from common.program import StopSignal
from common.training.run import Run

log = logging.getLogger(__name__)

DECAY_FROM = 0.5
"Share of the time after which the learning rate falls along a cosine, to zero at the end."
STEPS_BETWEEN_LOOKS = 20
"Steps whose losses are read from the card at once."
SECONDS_BETWEEN_LINES = 15

Step = Callable[[], tuple[Tensor, Tensor]]
"Leaves the clipped gradients in the parameters; returns the loss and the norm before clipping."


def train(run: Run, step: Step, stream: Stream, until: float, stop: StopSignal) -> None:
    """Train until this time (of ``time.time``) or a signal; losses and steps go into ``run.progress``."""
    with stream.active():
        _train(run, step, until, stop)
    log.info(
        "%s: %d steps, loss %.4f, %s",
        run.name, run.progress.iteration, recent_loss(run), save_weights(run),
    )  # fmt: skip


def _train(run: Run, step: Step, until: float, stop: StopSignal) -> None:
    assert run.average is not None
    progress = run.progress
    optimizer: Any = run.optimizer
    # As a GradScaler would: the fused Adam leaves out a step whose gradients are not finite, without the host.
    optimizer.grad_scale = None
    began = said = time.time()
    losses: list[Tensor] = []
    while (now := time.time()) < until and not stop.requested:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run, (now - began) / (until - began))
        loss, norm = step()
        optimizer.found_inf = (~(torch.isfinite(loss) & torch.isfinite(norm))).float()
        optimizer.step()
        progress.iteration += 1
        run.average.update(progress.iteration)
        losses.append(loss.clone())
        if len(losses) == STEPS_BETWEEN_LOOKS:
            progress.losses += torch.stack(losses).tolist()
            losses.clear()
            if now - said > SECONDS_BETWEEN_LINES:
                said = now
                log.info("%s, %.0f s: %d steps, loss %.4f", run.name, now - began, progress.iteration, recent_loss(run))
    progress.losses += [loss.item() for loss in losses]


def learning_rate(run: Run, done: float) -> float:
    """At this share of the time."""
    settings = run.config.train_config
    rate = settings.learning_rate * min(1.0, (run.progress.iteration + 1) / max(1, settings.warmup_steps))
    if done <= DECAY_FROM:
        return rate
    return rate * (1 + math.cos(math.pi * (done - DECAY_FROM) / (1 - DECAY_FROM))) / 2


def recent_loss(run: Run) -> float:
    recent = run.progress.losses[-10 * STEPS_BETWEEN_LOOKS :]
    return sum(recent) / len(recent) if recent else math.nan


def save_weights(run: Run) -> Path:
    """Write the moving average as a checkpoint without the optimizer's state."""
    assert run.average is not None
    weights = {name: tensor.cpu() for name, tensor in run.average.weights.items()}
    path = run.path()
    native.save(
        path,
        {
            "model": weights,
            "config": asdict(run.config),
            "iteration": run.progress.iteration,
            "progress": vars(run.progress),
        },
    )
    return path
