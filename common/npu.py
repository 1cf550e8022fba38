"""What an Ascend NPU needs of a model: other operators for the same layers, some of them on the host.

CANN 5.0.3 had no usable 1-D convolutions and no transposed ones, and no CANN has a derivative of
the log-determinant. The patch swaps the classes of the layers concerned; parameters, their names
and shapes, and so checkpoints, stay as they are. The models need no ``unfold``: they reshape.
"""

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import NpuConfig
from common.device import Device, cann_version
from common.layers import Conv1d, LogAbsDet

log = logging.getLogger("train")

NATIVE_CONV1D_SINCE = (8, 0)
"CANN whose 1-D convolutions are native; what lies between 5.0.3 and it is treated like 5.0.3."


@dataclass
class Crossings:
    """Copies between device and host that the patch makes, forward and backward."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def move(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor on ``device``; counted if that is another one."""
        if tensor.device == device:
            return tensor
        began = time.perf_counter()
        moved = tensor.to(device)
        self.count += 1
        self.bytes += tensor.numel() * tensor.element_size()
        self.seconds += time.perf_counter() - began
        return moved


class _Cross(torch.autograd.Function):
    """A move whose gradient moves back."""

    @staticmethod
    def forward(ctx, tensor: Tensor, device: torch.device, crossings: Crossings) -> Tensor:
        ctx.origin, ctx.crossings = tensor.device, crossings
        moved = crossings.move(tensor, device)
        return moved if moved is not tensor else tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.crossings.move(gradient, ctx.origin), None, None


class Conv1dAsConv2d(Conv1d):
    """The same convolution with time on H and W = 1, the shapes of the TBE white lists."""

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padding, dilation = (self.padding, 0), (self.dilation, 1)
        return F.conv2d(x[..., None], weight[..., None], bias, padding=padding, dilation=dilation)[..., 0]


class HostConvTranspose1d(nn.ConvTranspose1d):
    """Computed on the host in float32, whose CPU kernels have no half precision at speed."""

    crossings: Crossings

    def forward(self, x: Tensor) -> Tensor:
        to_host = lambda tensor: _Cross.apply(tensor, torch.device("cpu"), self.crossings).float()  # noqa: E731
        y = F.conv_transpose1d(to_host(x), to_host(self.weight), to_host(self.bias), self.stride)
        return _Cross.apply(y.to(x.dtype), x.device, self.crossings)


class HostLogAbsDet(LogAbsDet):
    """Computed on the host in float32."""

    crossings: Crossings

    def forward(self, matrix: Tensor) -> Tensor:
        log_abs_det = super().forward(_Cross.apply(matrix, torch.device("cpu"), self.crossings))
        return _Cross.apply(log_abs_det, matrix.device, self.crossings)


def patch_for_npu(model: nn.Module, config: NpuConfig, device: Device) -> Crossings:
    """Swap the layers for what the device needs, as ``config`` says; returns the count of crossings."""
    swaps: dict[type[nn.Module], type[nn.Module]] = {}
    wanted, why = choose(config, device)
    if wanted["conv1d_as_conv2d"]:
        swaps[Conv1d] = Conv1dAsConv2d
    if wanted["conv_transpose_on_cpu"]:
        swaps[nn.ConvTranspose1d] = HostConvTranspose1d
    if wanted["logdet_on_cpu"]:
        swaps[LogAbsDet] = HostLogAbsDet
    crossings = Crossings()
    for module in model.modules():
        if type(module) in swaps:
            module.__class__ = swaps[type(module)]
            module.crossings = crossings
    if device.type == "npu" or swaps:
        log.info("npu patch: %s (%s)", ", ".join(name for name, on in wanted.items() if on) or "nothing", why)
    return crossings


def choose(config: NpuConfig, device: Device) -> tuple[dict[str, bool], str]:
    """Each part of the patch on or off, and why the parts left to ``auto`` are as they are."""
    version = cann_version() if device.type == "npu" else None
    if device.type != "npu":
        automatic, why = dict.fromkeys(vars(config), False), f"auto: nothing is needed on {device.type}"
    elif version is None or version < NATIVE_CONV1D_SINCE:
        found = "CANN of unknown version" if version is None else f"CANN {'.'.join(map(str, version))}"
        automatic, why = dict.fromkeys(vars(config), True), f"auto: {found} is treated like 5.0.3"
    else:
        automatic = {"conv1d_as_conv2d": False, "conv_transpose_on_cpu": False, "logdet_on_cpu": True}
        why = f"auto: CANN {'.'.join(map(str, version))} has native 1-D convolutions"
    return {name: {"on": True, "off": False}.get(value, automatic[name]) for name, value in vars(config).items()}, why
