"""Several processes: what torchrun started, and collectives that do nothing in a single process."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.device import Device
from common.program import UserError

Value = TypeVar("Value")

# A rank may load data or write a checkpoint while the others wait. As long as Ascend's recipes set HCCL's limits.
TIMEOUT = timedelta(minutes=30)
HCCL_LIMITS = {"HCCL_CONNECT_TIMEOUT": 7200, "HCCL_EXEC_TIMEOUT": 17340}
"HCCL's own limits, in seconds, and the largest that CANN's documentation allows."


@dataclass(frozen=True)
class Ranks:
    """Which process this is."""

    rank: int
    "Among all processes."
    world_size: int
    "All processes."
    local_rank: int
    "Among those of this machine."


def ranks() -> Ranks:
    """Read from torchrun's environment variables; without them there is one process."""

    def get(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    return Ranks(get("RANK", 0), get("WORLD_SIZE", 1), get("LOCAL_RANK", 0))


def start(device: Device, hang_limit: float = 0) -> None:
    """Join the process group if there are other processes; no wait for them is shorter than ``hang_limit`` s."""
    if ranks().world_size == 1:
        return
    timeout = max(TIMEOUT, timedelta(seconds=hang_limit))
    if device.backend == "hccl":
        # By default it takes 120 s to connect, while a rank may still read the corpus.
        for name, largest in HCCL_LIMITS.items():
            os.environ.setdefault(name, str(min(largest, int(timeout.total_seconds()))))
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    # After a restart the store still holds where the processes of the attempt before could be reached.
    store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(device.backend, store=store, rank=rank, world_size=world_size, timeout=timeout)


def stop() -> None:
    """Leave the process group.

    Not gloo's, which ends with the process (``program.run``): with PyTorch 2.1 this may wait for ever for one of its
    threads, and that one for the interpreter.
    """
    if dist.is_initialized() and dist.get_backend() != "gloo":
        dist.destroy_process_group()


def wrap(model: nn.Module, device: Device) -> nn.Module:
    """The model with its gradients averaged over all processes in the backward pass."""
    if not dist.is_initialized():
        return model
    return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device.torch_device.index])


def gradients_reduced(model: nn.Module, last: bool) -> AbstractContextManager:
    """Around a forward pass: its gradients are exchanged in the backward pass only if it is the
    last of those that are added up."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's statistics of batch norm, which are those of the checkpoints."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather_objects(value: Value) -> list[Value]:
    """Every process's value, on every process. Slow: for small things now and then."""
    if not dist.is_initialized():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def first_ranks(make: Callable[[], Value]) -> Value:
    """What the first process makes, on every process: the others may have no such file, or another one.

    A UserError is every process's, too.
    """
    if not dist.is_initialized():
        return make()
    made: list = [None, None]
    if ranks().rank == 0:
        try:
            made[0] = make()
        except UserError as error:
            made[1] = error
    dist.broadcast_object_list(made, 0)
    if made[1]:
        raise made[1]
    return made[0]
