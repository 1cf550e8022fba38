"""waveglow.train with a fault in it: FAULT=kind:rank:step python -m faulty_train [options]

The step counts from 0 within the process. The fault happens once: not again after a restart.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from common import distributed, program
from common.training import watchdog
from waveglow import train

KIND, RANK, STEP = os.environ["FAULT"].split(":")
models = []
"That which is trained."


def nan(loss: Tensor) -> Tensor:
    return loss * math.nan


def killed(loss: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped(loss: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSTOP)


def an_hour_passes() -> None:
    """For the watchdog."""
    watchdog.time = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)


def hanging(loss: Tensor) -> Tensor:
    an_hour_passes()
    time.sleep(3600)


def busy(loss: Tensor) -> Tensor:
    an_hour_passes()
    while True:
        pass


def diverging(loss: Tensor) -> Tensor:
    """One number of one weight becomes the next larger one."""
    models[0].WN[0].start.weight_v.data.view(-1)[:1].nextafter_(torch.tensor([math.inf]))
    return loss


def lost(loss: Tensor) -> Tensor:
    """All wavs of the corpus but the first training clip's turn unreadable."""
    for path in sorted(Path(os.environ["CORPUS"], "wavs").iterdir())[2:]:
        path.write_bytes(b"broken")
    return loss


def spoil(make_task):
    def make_spoiled(run, data_path):
        models.append(run.model)
        task = make_task(run, data_path)
        original, steps = task.loss, iter(range(10**6))

        def loss(model, batch):
            value = original(model, batch)
            if model.training and next(steps) == int(STEP):
                print(f"the fault: {KIND} in step {STEP}", flush=True)
                return globals()[KIND](value)
            return value

        task.loss = loss
        return task

    return make_spoiled


if __name__ == "__main__":
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if distributed.ranks().rank == int(RANK) and not restarted:
        train.make_task = spoil(train.make_task)
    program.run(train.main, may_be_rank=True)
