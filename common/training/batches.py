"""Which clips make up the batches of a training, and the loader that fetches them."""

import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common import distributed
from common.config import TrainConfig
from common.device import Device
from common.program import UserError

LOADER_TIMEOUT = 600
"Seconds without a batch from the loader after which the run ends with an error."


def shuffled(clips: int, seed: int) -> Callable[[int], np.ndarray]:
    """An order for each epoch, drawn from seed and epoch."""
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(clips)


def load(dataset: Dataset, **options: Any) -> DataLoader:
    """A DataLoader that leaves the random numbers of the training alone, from which it would seed its workers."""
    return DataLoader(dataset, generator=torch.Generator(), **options)


def to_device(tensor: torch.Tensor, device: Device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor of a batch on the device, in this precision or its own.

    The host does not wait for a copy to a CUDA card that begins in pinned memory.
    """
    if device.type != "cuda":
        return tensor.to(device.torch_device, dtype)
    # Converted before the copy, it would no longer be in pinned memory.
    return tensor.to(device.torch_device, non_blocking=True).to(dtype)


def training_batches(
    dataset: Dataset,
    order: Callable[[int], np.ndarray],
    config: TrainConfig,
    device: Device,
    collate: Callable | None = None,
) -> Callable[[int, int], Generator[dict, None, None]]:
    """(epoch, clips already seen of it) -> this process's batches from there on, without end.

    ``dataset`` is asked for (epoch, number of the clip). For a CUDA card the tensors are in pinned memory.
    UserError if the clips do not make one step.
    """
    ranks = distributed.ranks()
    sampler = StepSampler(order, config.batch_size, config.grad_accumulation, ranks.rank, ranks.world_size)
    clips = len(order(0))
    if clips < sampler.clips_per_step:
        raise UserError(
            f"{clips} training clips do not make one step of {sampler.clips_per_step} clips"
            f" ({config.batch_size} x {config.grad_accumulation} x {ranks.world_size} processes): lower --batch_size"
        )

    def batches(epoch: int, first: int) -> Generator[dict, None, None]:
        sampler.start_at(epoch, first)
        timeout = LOADER_TIMEOUT if config.workers else 0
        options = {"batch_sampler": sampler, "num_workers": config.workers, "timeout": timeout}
        yield from load(dataset, collate_fn=collate, pin_memory=device.type == "cuda", **options)

    return batches


class StepSampler(Sampler):
    """The (epoch, clip) of each batch of one process, without end.

    ``order(epoch)`` gives the numbers of all clips in the order of that epoch. All processes
    together take them in that order, a step's worth at a time, so the clips of a step do not depend
    on how many processes share them. What is left at an epoch's end and makes no step is dropped.
    """

    def __init__(
        self, order: Callable[[int], np.ndarray], batch_size: int, accumulation: int, rank: int, world_size: int
    ):
        self.order = order
        self.batch_size = batch_size
        self.share = batch_size * accumulation
        self.clips_per_step = self.share * world_size
        self.rank = rank
        self.epoch = 0
        self.first = 0

    def start_at(self, epoch: int, clips: int) -> None:
        """Start in this epoch, after this many of its clips."""
        self.epoch, self.first = epoch, clips

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.first
        for epoch in itertools.count(self.epoch):
            order = self.order(epoch)
            for i in range(first, len(order) - self.clips_per_step + 1, self.clips_per_step):
                yield from self._own_batches(epoch, order[i : i + self.clips_per_step])
            first = 0

    def _own_batches(self, epoch: int, clips: np.ndarray) -> Iterator[list[tuple[int, int]]]:
        """This process's share of each step's clips, batch by batch."""
        own = clips[self.rank * self.share : (self.rank + 1) * self.share]
        for i in range(0, self.share, self.batch_size):
            yield [(epoch, int(clip)) for clip in own[i : i + self.batch_size]]
