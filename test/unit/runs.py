"""Training runs inside the test's process."""

import torch

from common import training
from common.config import from_dict
from common.device import make_adam, pick_device
from common.precision import Precision
from common.program import StopSignal
from common.progress import Run
from common.training import Summary, Task
from waveglow.config import Config, build_model
from waveglow.train import make_task

CPU = pick_device("cpu")


def make_run(values: dict, output, **changes) -> Run:
    """A run with the configuration and changes to its train_config."""
    train = values["train_config"] | {"output_directory": str(output)} | changes
    config = from_dict(Config, values | {"train_config": train})
    train = config.train_config
    torch.manual_seed(train.seed)
    model = build_model(config)
    precision = Precision(train.amp or "O0", train.loss_scale, CPU, model)
    optimizer = make_adam(precision.master_params, train.learning_rate, CPU)
    return Run("waveglow", config, CPU, model, precision, optimizer)


def start(values: dict, corpus, output, resume: str = "auto", spoil=None, **changes) -> tuple[Run, Summary]:
    """Train; ``spoil(task, run)`` may change the task before."""
    run = make_run(values, output, **changes)
    task = make_task(run, str(corpus))
    run.start(resume)
    if spoil:
        spoil(task, run)
    return run, training.train(run, task, StopSignal())


def with_noise(task: Task, run: Run) -> None:
    """Make the loss draw random numbers, as dropout does."""
    original = task.loss
    task.loss = lambda model, batch: original(model, batch) * (torch.rand(()) if model.training else 1)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().float().flatten() for p in run.precision.master_params])
