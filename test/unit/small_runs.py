"""A run of a small model, without a network, a corpus or a folder."""

from types import SimpleNamespace

import torch
from torch import nn

from common.checkpoints.progress import Progress
from common.config import TrainConfig
from common.precision import Precision
from common.training.averaging import WeightAverage
from common.training.run import Run
from runs import CPU


def small_run(progress=None, **settings) -> Run:
    """A run of a model with batch norm and two groups of weights."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    precision = Precision("O0", 1.0, CPU, model)
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model], lr=1.0)
    config = SimpleNamespace(train_config=TrainConfig(**settings))
    average = WeightAverage(0.5, model, precision)
    return Run("toy", config, CPU, model, precision, optimizer, average, progress=progress or Progress())
