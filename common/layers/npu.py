"""Changes to a model for an Ascend NPU: other operators for the same layers, some of them on the host.

CANN 5.0.3 had no usable 1-D convolutions and no transposed ones, and no CANN has a derivative of
the log-determinant. The patch swaps the classes of the layers concerned; parameters, their names
and shapes, and so checkpoints, stay as they are. The models need no ``unfold``: they reshape.
"""

import logging
import re
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import NpuConfig
from common.device import Device, cann_version, card_name
from common.layers.conv import Conv1d, LogAbsDet, Upsampling

log = logging.getLogger(__name__)

NATIVE_CONV1D_SINCE = (8, 0)
"CANN whose 1-D convolutions are native; what lies between 5.0.3 and it is treated like 5.0.3."
NATIVE_CONV1D_CARDS = re.compile(r"Ascend(910B\d|910C|910_9|950)")
"Cards they are native on, A2 and later. A 910B without a digit is of the first generation, with 910A and 910ProB."


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
    def forward(ctx: Any, tensor: Tensor, device: torch.device, crossings: Crossings) -> Tensor:
        ctx.origin, ctx.crossings = tensor.device, crossings
        moved = crossings.move(tensor, device)
        return moved if moved is not tensor else tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.crossings.move(gradient, ctx.origin), None, None


class Conv1dAsConv2d(Conv1d):
    """The same convolution with time on H and W = 1, the shapes of the TBE white lists."""

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padding, dilation = (self.padding, 0), (self.dilation, 1)
        return F.conv2d(x[..., None], weight[..., None], bias, padding=padding, dilation=dilation)[..., 0]


class HostUpsampling(Upsampling):
    """Computed on the host in float32, whose CPU kernels have no half precision at speed."""

    composable = False
    crossings: Crossings

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        to_host = lambda tensor: _Cross.apply(tensor, torch.device("cpu"), self.crossings).float()  # noqa: E731
        y = F.conv_transpose1d(to_host(x), to_host(self.weight), to_host(self.bias), self.stride)
        return _Cross.apply(y.to(x.dtype), x.device, self.crossings)


class Float32Upsampling(Upsampling):
    """Computed on the device in float32, all that CANN's native operator takes."""

    composable = False

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        with torch.autocast(x.device.type, enabled=False):
            y = F.conv_transpose1d(x.float(), self.weight.float(), self.bias.float(), self.stride)
        return y.to(x.dtype)


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
        swaps[Upsampling] = HostUpsampling
    elif device.type == "npu":
        swaps[Upsampling] = Float32Upsampling
    if wanted["logdet_on_cpu"]:
        swaps[LogAbsDet] = HostLogAbsDet
    crossings = Crossings()
    for module in model.modules():
        if type(module) in swaps:
            module.__class__ = swaps[type(module)]
            if isinstance(module, HostUpsampling | HostLogAbsDet):
                module.crossings = crossings
    if device.type == "npu" or swaps:
        log.info("npu patch: %s (%s)", ", ".join(name for name, on in wanted.items() if on) or "nothing", why)
    return crossings


def choose(config: NpuConfig, device: Device) -> tuple[dict[str, bool], str]:
    """Each part of the patch on or off, and why."""
    automatic, why = _automatic(device)
    configured = {name: value == "on" for name, value in vars(config).items() if value != "auto"}
    reasons = [f"as configured: {', '.join(configured)}"] if configured else []
    if len(configured) < len(automatic):
        reasons.append(f"auto: {why}")
    return automatic | configured, "; ".join(reasons)


def _automatic(device: Device) -> tuple[dict[str, bool], str]:
    """The parts of the patch that the CANN and the card found need, and why."""
    everything = dict(conv1d_as_conv2d=True, conv_transpose_on_cpu=True, logdet_on_cpu=True)
    if device.type != "npu":
        return dict.fromkeys(everything, False), f"nothing is needed on {device.type}"
    version, card = cann_version(), card_name(device)
    cann = f"CANN {'.'.join(map(str, version))}" if version else "CANN of unknown version"
    if not version or version < NATIVE_CONV1D_SINCE:
        return everything, f"{cann} on {card} is treated like 5.0.3"
    if not NATIVE_CONV1D_CARDS.match(card):
        return everything, f"{card} is treated like with CANN 5.0.3, also with {cann}"
    convolutions_native = everything | dict(conv1d_as_conv2d=False, conv_transpose_on_cpu=False)
    return convolutions_native, f"{cann} on {card} has native 1-D convolutions"
