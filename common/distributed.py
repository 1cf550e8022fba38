"""Several processes: what torchrun started, and collectives that do nothing in a single process."""

import logging
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common import meeting
from common.device import Device
from common.program import UserError, first_line, is_of_a_peer, shown

log = logging.getLogger(__name__)

Value = TypeVar("Value")

# A rank may load data or write a checkpoint while the others wait. Ascend's recipes give HCCL as long.
TIMEOUT = timedelta(minutes=30)
HCCL_LIMITS = {"HCCL_CONNECT_TIMEOUT": 7200, "HCCL_EXEC_TIMEOUT": 17340}
"HCCL's own limits, in seconds, and the largest that CANN's documentation allows."
MOST_PROCESSES = 2**16
ROLL_CALL = 10.0
"Seconds in which a process that has lost another one hears from the others."
SAME_EVERYWHERE = "start all of them with the same options, configuration, code and data"

_store: dist.Store | None = None
"Where the processes have met."
_hosts: list[str] = []
"Each rank's machine."


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
    """Read from torchrun's environment variables; without them there is one process.

    UserError that names the variable, if it cannot be what torchrun sets.
    """
    world_size = _variable("WORLD_SIZE", 1, at_least=1, at_most=MOST_PROCESSES)
    if world_size == 1:
        return Ranks(0, 1, 0)
    rank = _variable("RANK", 0, at_least=0, at_most=world_size - 1)
    return Ranks(rank, world_size, _variable("LOCAL_RANK", 0, at_least=0, at_most=rank))


def _variable(name: str, default: int | None, at_least: int, at_most: int) -> int:
    text = os.environ.get(name, default)
    try:
        value = int(text)  # type: ignore[arg-type]  # None is refused, too
        if at_least <= value <= at_most:
            return value
    except (TypeError, ValueError):
        pass
    found = "not set" if text is None else shown(text)
    raise UserError(
        f"the variable {name} is {found}, must be a number from {at_least} to {at_most} as torchrun sets it:"
        f" `unset RANK WORLD_SIZE LOCAL_RANK` for one process, --nproc=N starts N"
    )


def start(device: Device, hang_limit: float = 0, facts: dict[str, Any] | None = None) -> None:
    """Join the process group if there are other processes; no wait for them ends before ``hang_limit`` s.

    ``facts``: what must be the same in all of them. UserError that names the field that is not, or the processes that
    do not come; a different release of torch or Python is only logged.
    """
    ours = ranks()
    if ours.world_size == 1:
        return
    timeout = max(TIMEOUT, timedelta(seconds=hang_limit))
    if device.backend == "hccl":
        # By default it gives up connecting after 120 s, when a rank may still be reading the corpus.
        for name, largest in HCCL_LIMITS.items():
            os.environ.setdefault(name, str(min(largest, int(timeout.total_seconds()))))
    patience = max(hang_limit, meeting.SAY_AFTER) if hang_limit else timeout.total_seconds()
    store = _meet(ours, {"WORLD_SIZE": ours.world_size, "device": device.type} | (facts or {}), patience)
    store.set_timeout(timeout)
    dist.init_process_group(device.backend, store=store, rank=ours.rank, world_size=ours.world_size, timeout=timeout)


def _meet(ours: Ranks, facts: dict[str, Any], limit: float) -> dist.Store:
    """The store where the ranks meet, once all are there; UserError if one is not, or differs from the others."""
    global _store, _hosts
    address = os.environ.get("MASTER_ADDR")
    if not address:
        raise UserError(
            f"the variable WORLD_SIZE is {ours.world_size} and MASTER_ADDR is not set: `unset RANK WORLD_SIZE` for one"
            " process, --nproc=N starts N"
        )
    port = _variable("MASTER_PORT", None, at_least=1, at_most=65535)
    is_host = ours.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = meeting.connect(address, port, is_host, limit, log.warning)
    # After a restart the store still holds what the processes of the attempt before left.
    _store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    notes = {"host": socket.gethostname(), "torch": torch.__version__, "Python": platform.python_version()}
    met = meeting.meet(_store, "rank", ours.rank, ours.world_size, {"facts": facts, "notes": notes}, limit, log.warning)
    _hosts = [each["notes"].pop("host") for each in met]
    for difference in meeting.differing([each["notes"] for each in met]):
        log.warning("the processes are not alike, and their numbers may not be: %s", difference)
    try:
        meeting.check_same([each["facts"] for each in met], SAME_EVERYWHERE)
    except UserError:
        meeting.part(_store, ours.rank, ours.world_size)
        raise
    return _store


def agree(facts: dict[str, Any], advice: str = SAME_EVERYWHERE) -> None:
    """UserError, on every process, that names the field and the ranks if the facts are not the same on all."""
    if dist.is_initialized():
        meeting.check_same(gather_objects(facts), advice)


@contextmanager
def naming_the_absent() -> Iterator[None]:
    """Let an error inside that only says that another process is gone name the processes and their machines.

    On one machine torchrun knows them; about other machines nothing else tells.
    """
    try:
        yield
    except Exception as error:
        if _store is None or not is_of_a_peer(error) or _all_are_here():
            raise
        raise ConnectionError(f"{_absent()}: {first_line(error)}") from error


def _absent() -> str:
    """The processes that no longer answer; all that meet such an error ask at the same time."""
    ours, store = ranks(), _store
    assert store is not None
    try:
        missing = meeting.absent(store, "still here", ours.rank, ours.world_size, ROLL_CALL, lambda *_: None)
    except RuntimeError:
        return f"the machine of rank 0 ({_hosts[0]}, {os.environ.get('MASTER_ADDR')}) does not answer"
    if not missing:
        return "all processes answer, but the connection between them is broken"
    hosts = sorted({_hosts[rank] for rank in missing})
    return f"rank {meeting.listed(missing)} ({', '.join(hosts)}) does not answer"


def _all_are_here() -> bool:
    """Whether all processes are on this machine."""
    return os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]


def stop() -> None:
    """Leave the process group.

    gloo's is not left, it ends with the process (``program.run``): with PyTorch 2.1 leaving it may wait forever for one
    of its threads, which itself waits for the interpreter.
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


def first_ranks(make: Callable[[], Value], rank: int = 0) -> Value:
    """What the first process makes, or that of another ``rank``, on every process: the others may have no such file,
    or another one.

    A UserError is raised on every process, too.
    """
    if not dist.is_initialized():
        return make()
    made: list = [None, None]
    if ranks().rank == rank:
        try:
            made[0] = make()
        except UserError as error:
            made[1] = error
    dist.broadcast_object_list(made, rank)
    if made[1]:
        raise made[1]
    return made[0]
