"""The same computation on the emulated NPU and on the CPU."""

import torch
import torch_npu  # noqa: F401 - makes the device known
from torch import nn

NPU = torch.device("npu", 0)


def same(on_npu, on_cpu) -> bool:
    """Bit for bit, and where they should be."""
    return on_npu.device.type == "npu" and on_cpu.device.type == "cpu" and torch.equal(on_npu.cpu(), on_cpu)


def both(function, *inputs):
    """Results and input gradients of a function on the NPU and on the CPU."""
    outcomes = []
    for device in ("npu", "cpu"):
        torch.manual_seed(1)
        there = [x.detach().to(device).requires_grad_(x.is_floating_point()) for x in inputs]
        result = function(*there)
        (result.float() ** 2).sum().backward()
        outcomes.append([result.detach(), *(x.grad for x in there if x.grad is not None)])
    return zip(*outcomes)


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, (3, 1), padding=(1, 0)), nn.Tanh(), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
