"""Training runs inside the test's process."""

import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
import torch.distributed as dist

import tacotron2.config
import tacotron2.train
import waveglow.config
import waveglow.train
from common import distributed
from common.config_reading import from_dict
from common.device import pick_device
from common.program import StopSignal
from common.training import loop, main
from common.training.loop import Summary, Task
from common.training.run import Run

CPU = pick_device("cpu")
PACKAGES = {"waveglow": waveglow, "tacotron2": tacotron2}
CURVE = {"max_steps": 20, "learning_rate": 5e-3}
"With which a Tacotron2 of toy size learns tones of 0.2 s: its loss falls from 9.3 to 5.0."
TOLERANCE = {torch.float16: 0.15, torch.bfloat16: 0.3}
"""How far a loss of that curve may be from float32's at O1 and O2. Measured: float16 0.09 (O1) and 0.07 (O2) on the
emulated NPU, bfloat16 0.13 (O1) and 0.21 (O2) on the CPU."""


def torch_version() -> tuple[int, ...]:
    """Such as (2, 13)."""
    return tuple(map(int, torch.__version__.split(".")[:2]))


def float16_runs() -> bool:
    """Whether this PyTorch computes in float16 on a CPU, on which some tests try what a card does."""
    try:
        torch.nn.functional.conv1d(*torch.ones(2, 1, 1, 1, dtype=torch.float16))
    except RuntimeError:
        return False
    return True


def fused_adam_runs() -> bool:
    """Whether this PyTorch has a fused Adam for CPUs."""
    try:
        torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], fused=True)
    except RuntimeError:
        return False
    return True


needs_fused_adam = pytest.mark.skipif(not fused_adam_runs(), reason="this PyTorch has no fused Adam for CPUs")
needs_float16 = pytest.mark.skipif(not float16_runs(), reason="this PyTorch has no float16 on CPUs")


def make_run(values: dict, output, device=CPU, **changes) -> Run:
    """A run with the configuration and changes to its train_config."""
    (name,) = (name for name in PACKAGES if f"{name}_config" in values)
    train = values["train_config"] | {"output_directory": str(output)} | changes
    package = PACKAGES[name].config
    config = from_dict(package.Config, values | {"train_config": train})
    return main.make_run(name, config, package.build_model, device)


def start(
    values: dict, corpus, output, resume: str = "auto", spoil=None, device=CPU, stop=None, **changes
) -> tuple[Run, Summary]:
    """Train; ``spoil(task, run)`` may change the task before, and ``stop`` be requested in between."""
    run = make_run(values, output, device, **changes)
    task = PACKAGES[run.name].train.make_task(run, str(corpus))
    run.start(resume)
    if spoil:
        spoil(task, run)
    return run, loop.train(run, task, stop or StopSignal())


def in_a_group(folder, work: Callable[[], Any], backend: str = "gloo") -> Any:
    """What ``work`` returns, as the only process of a group.

    A DistributedDataParallel must not outlive the group, or its end may hang: that of ``work`` ends before.
    """
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
    try:
        return work()
    finally:
        dist.destroy_process_group()


def in_processes(monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[int], Any]) -> list:
    """What ``work(rank)`` gives in each of ``count`` processes of one machine, which meet as those of a group do."""
    here, meeting = threading.local(), threading.Barrier(count, timeout=60)
    given, results, errors = [None] * count, [None] * count, []

    def gather(value):
        given[here.rank] = value
        meeting.wait()
        everyones = list(given)
        meeting.wait()
        return everyones

    def first_ranks(make, rank=0):
        return gather(make() if here.rank == rank else None)[rank]

    def run(rank):
        here.rank = rank
        try:
            results[rank] = work(rank)
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "ranks", lambda: distributed.Ranks(here.rank, count, here.rank))
        patch.setattr(distributed, "gather_objects", gather)
        patch.setattr(distributed, "first_ranks", first_ranks)
        threads = [threading.Thread(target=run, args=[rank]) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return results


def with_noise(task: Task, run: Run) -> None:
    """Make the loss draw random numbers, as dropout does."""
    original = task.loss
    task.loss = lambda model, batch: original(model, batch) * (torch.rand(()) if model.training else 1)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().float().flatten() for p in run.precision.master_params])


def model_of(run: Run) -> dict[str, torch.Tensor]:
    """Weights and statistics of batch norm in float32, on the host."""
    return {name: tensor.cpu().clone() for name, tensor in run.precision.model_state(run.model).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def distance(losses: list[float], others: list[float]) -> float:
    """The largest between the losses of two runs."""
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


def names_in(task: Task, count: int = 3) -> list[list[str]]:
    """The clips of each of the first batches."""
    return [batch["names"] for batch in islice(task.batches(0, 0), count)]
