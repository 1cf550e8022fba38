"""Checks of hccl between the processes that torchrun started; test/unit/test_npu_emulator.py runs it."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
import torch_npu
from torch import nn
from torch.nn.parallel import DistributedDataParallel

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
NPU = torch.device("npu", RANK)


def full(value: float, size: int = 2) -> torch.Tensor:
    return torch.full((size,), float(value), device=NPU)


def check_collectives() -> None:
    last = SIZE - 1
    assert dist.get_backend() == "hccl"
    x = full(RANK + 1)
    dist.all_reduce(x)
    assert x.tolist() == [3, 3]
    x = full(RANK)
    dist.broadcast(x, last)
    assert x.tolist() == [last, last]
    parts = [full(0) for _ in range(SIZE)]
    dist.all_gather(parts, full(RANK))
    assert [part[0].item() for part in parts] == [0, 1]
    whole = full(0, 4)
    dist.all_gather_into_tensor(whole, full(RANK))
    assert whole.tolist() == [0, 0, 1, 1]
    part = full(0)
    dist.reduce_scatter_tensor(part, whole)
    assert part.tolist() == [2 * RANK] * 2
    dist.scatter(part, [full(5), full(6)] if RANK == 0 else None, src=0)
    assert part.tolist() == [5 + RANK] * 2
    dist.gather(full(RANK), parts if RANK == 0 else None, dst=0)
    dist.reduce(x, 0)
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    if RANK == 0:
        dist.send(full(7), 1)
    else:
        dist.recv(x, 0)
        assert x.tolist() == [7, 7]
    group = dist.new_group([0, 1], timeout=timedelta(seconds=30))
    dist.all_reduce(x, group=group)
    dist.barrier()


def check_objects() -> None:
    values = [None] * SIZE
    dist.all_gather_object(values, {"rank": RANK})
    assert values == [{"rank": 0}, {"rank": 1}]
    values = [RANK]
    dist.broadcast_object_list(values, 1)
    assert values == [1]


def check_refuses_host_tensors() -> None:
    try:
        dist.all_reduce(torch.ones(2))
    except RuntimeError:
        return
    raise AssertionError("a tensor of the host went through hccl")


def check_ddp(**options) -> None:
    """Two processes with half a batch each do what one does with the whole."""
    torch.manual_seed(0)
    alone = nn.Sequential(nn.Conv2d(3, 4, (3, 1)), nn.Tanh(), nn.Conv2d(4, 1, 1))
    parallel = DistributedDataParallel(
        nn.Sequential(nn.Conv2d(3, 4, (3, 1)), nn.Tanh(), nn.Conv2d(4, 1, 1)).to(NPU), device_ids=[RANK], **options
    )
    if RANK == 0:
        parallel.module.load_state_dict(alone.state_dict())
    for param in parallel.module.state_dict().values():
        dist.broadcast(param, 0)
    optimizers = [
        torch.optim.Adam(alone.parameters(), 0.01, fused=True),
        torch_npu.optim.NpuFusedAdam(parallel.parameters(), 0.01),
    ]
    for _ in range(4):
        batch = torch.randn(4, 3, 10, 1)
        for optimizer in optimizers:
            optimizer.zero_grad()
        alone(batch).square().mean().backward()
        half = batch.chunk(SIZE)[RANK].to(NPU)
        with parallel.no_sync():
            (parallel(half).square().mean() / 2).backward()
        (parallel(half).square().mean() / 2).backward()
        for optimizer in optimizers:
            optimizer.step()
    for param, expected in zip(parallel.parameters(), alone.parameters()):
        assert param.device == param.grad.device == NPU
        assert torch.allclose(param.cpu(), expected, atol=1e-6)
        both = [torch.zeros_like(param) for _ in range(SIZE)]
        dist.all_gather(both, param.detach())
        assert torch.equal(*both)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.npu.set_device(RANK)
    dist.init_process_group("hccl", timeout=timedelta(minutes=1))
    check_collectives()
    check_objects()
    check_refuses_host_tensors()
    check_ddp()
    check_ddp(find_unused_parameters=True)
    dist.destroy_process_group()
