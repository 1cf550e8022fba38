"""Changes to a model for an Ascend NPU: other operators for the same layers, some of them on the host.

CANN 5.0.3 had no usable 1-D convolutions, nor transposed ones; newer releases have the latter only for short kernels,
and no CANN has a derivative of the log-determinant. The patch swaps the classes of the layers concerned; parameters,
their names and shapes, and so checkpoints, stay as they are. The models need no ``unfold``: they reshape.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.profiler import record_function

from common.config import NpuConfig
from common.device import Device, cann_version, card_name, set_jit_compile
from common.layers.conv import Conv1d, LogAbsDet, Upsampling
from common.program import UserError

log = logging.getLogger(__name__)

NATIVE_CONV1D_SINCE = (8, 0)
"The CANN from which 1-D convolutions are native; releases between 5.0.3 and it are treated like 5.0.3."
NATIVE_CONV1D_CARDS = re.compile(r"Ascend(910B\d|910C|910_9|950)")
"Cards on which they are native, A2 and later. A 910B without a digit is first generation, as are 910A and 910ProB."
LARGEST = 255
"""The largest padding of CANN's convolutions, and the longest kernel of the transposed ones on the cards above
(documentation of aclnnConvolution in github.com/hicann/ops-nn)."""
HOST = torch.device("cpu")


@dataclass
class Crossings:
    """Copies between device and host that the patch makes, and what is computed between them, forward and backward."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0
    "Spent copying."
    host_seconds: float = 0.0
    "Spent computing on the host."

    def move(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The tensor [...] on ``device``; counted if that is another one."""
        if tensor.device == device:
            return tensor
        began = time.perf_counter()
        moved = tensor.to(device)
        self.count += 1
        self.bytes += tensor.numel() * tensor.element_size()
        self.seconds += time.perf_counter() - began
        return moved

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around what is computed on the host."""
        began = time.perf_counter()
        yield
        self.host_seconds += time.perf_counter() - began


class _OnHost(torch.autograd.Function):
    """A function of tensors of the device, computed on the host; so is its gradient."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], crossings: Crossings, differentiable: bool, *tensors: Tensor
    ) -> Tensor:
        """Tensors of the device, of the shapes that ``function`` takes -> its result, on the device, too."""
        inputs = [crossings.move(tensor.detach(), HOST) for tensor in tensors]
        for tensor, needed in zip(inputs, ctx.needs_input_grad[3:]):
            tensor.requires_grad_(needed and differentiable)
        with crossings.computing(), torch.set_grad_enabled(differentiable), torch.autocast("cpu", enabled=False):
            y = function(*inputs)
        ctx.crossings, ctx.inputs, ctx.y = crossings, inputs, y
        return crossings.move(y.detach(), tensors[0].device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the result -> those of the tensors, of their shapes, None where none is needed."""
        crossings, device = ctx.crossings, gradient.device
        needed = [tensor for tensor in ctx.inputs if tensor.requires_grad]
        gradient = crossings.move(gradient, HOST)
        with crossings.computing():
            gradients = iter(torch.autograd.grad(ctx.y, needed, gradient))
        moved = [crossings.move(next(gradients), device) if each.requires_grad else None for each in ctx.inputs]
        del ctx.inputs, ctx.y
        return None, None, None, *moved


def on_host(crossings: Crossings, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)``, computed on the host: tensors [...] of the device -> its result there."""
    return _OnHost.apply(function, crossings, torch.is_grad_enabled(), *tensors)


class Conv1dAsConv2d(Conv1d):
    """The same convolution with time on H and W = 1, the shapes of the TBE white lists."""

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As ``Conv1d.convolve``: x [B, in, T], weight [out, in, k], bias [out] -> [B, out, T]."""
        padding, dilation = (self.padding, 0), (self.dilation, 1)
        return F.conv2d(x[..., None], weight[..., None], bias, padding=padding, dilation=dilation)[..., 0]


class HostUpsampling(Upsampling):
    """Computed on the host in float32: its CPU kernels are slow in half precision."""

    composable = False
    crossings: Crossings
    moved: list[Tensor] | None = None
    "Weight and bias on the host, once they are not trained any more: they are much larger than what is upsampled."

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        """x [B, in, T] -> [B, out, (T - 1) * stride + k]."""
        if self.weight.requires_grad:
            return on_host(self.crossings, self._in_float32, x, self.weight, self.bias)
        self.moved = self.moved or [self.crossings.move(each, HOST) for each in (self.weight, self.bias)]
        return on_host(self.crossings, self._in_float32, x, *self.moved)

    def _in_float32(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x [B, in, T], weight [in, out, k], bias [out] -> [B, out, (T - 1) * stride + k], in the precision of x."""
        return F.conv_transpose1d(x.float(), weight.float(), bias.float(), self.stride).to(x.dtype)


class ProductUpsampling(Upsampling):
    """Computed as one matrix product: a frame's samples from all the frames that reach them.

    CANN 8's operator takes kernels of 1 to 255 samples on the cards that have it, and WaveGlow's has 1024.
    """

    composable = False

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        """x [B, in, T] -> [B, out, (T - 1) * stride + k]."""
        with record_function("upsampling as a product"):
            (channels, _, taps), (stride,) = self.weight.shape, self.stride
            reach = -(-taps // stride)
            weight = F.pad(self.weight, (0, reach * stride - taps)).reshape(channels, -1, reach, stride)
            matrix = weight.permute(1, 3, 2, 0).flatten(2).flatten(0, 1)  # [out * stride, reach * in]
            frames = x.shape[2] + reach - 1
            padded = F.pad(x, (reach - 1, reach - 1))
            seen = torch.cat([padded[:, :, start : start + frames] for start in reversed(range(reach))], dim=1)
            y = torch.matmul(matrix, seen).unflatten(1, (-1, stride)).transpose(2, 3).flatten(2)
            return y[:, :, : (x.shape[2] - 1) * stride + taps] + self.bias[:, None].to(y.dtype)


class Float32Upsampling(Upsampling):
    """Computed on the device in float32, the only precision that CANN's native operator takes."""

    composable = False

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        """x [B, in, T] -> [B, out, (T - 1) * stride + k]."""
        return self.in_float32(x)


class HostLogAbsDet(LogAbsDet):
    """Computed on the host in float32."""

    crossings: Crossings

    def forward(self, matrix: Tensor) -> Tensor:
        """matrix [n, n] -> scalar."""
        return on_host(self.crossings, super().forward, matrix)


def patch_for_npu(model: nn.Module, config: NpuConfig, device: Device) -> Crossings:
    """Swap the layers for what the device needs, as ``config`` says; returns the count of crossings."""
    swaps: dict[type[nn.Module], type[nn.Module]] = {}
    wanted, why = choose(config, device)
    if wanted["conv1d_as_conv2d"]:
        swaps[Conv1d] = Conv1dAsConv2d
    if wanted["conv_transpose_on_cpu"]:
        swaps[Upsampling] = HostUpsampling
    elif wanted["conv_transpose_as_product"]:
        swaps[Upsampling] = ProductUpsampling
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
    if device.type == "npu":
        check_limits(model, device)
    if config.jit_compile != "auto":
        set_jit_compile(device, config.jit_compile == "on")
    if device.type == "npu" or swaps:
        log.info("npu patch: %s (%s)", ", ".join(name for name, on in wanted.items() if on) or "nothing", why)
    return crossings


def check_limits(model: nn.Module, device: Device) -> None:
    """UserError if a patched model has a convolution that is too large for CANN's."""
    for name, module in model.named_modules():
        if isinstance(module, Conv1d) and module.padding > LARGEST:
            raise UserError(
                f"{name} pads by {module.padding} on each side, and CANN's convolutions by at most {LARGEST}:"
                " take a smaller kernel_size or, in WN_config, fewer n_layers"
            )
        too_long = isinstance(module, Float32Upsampling) and module.kernel_size[0] > LARGEST
        if too_long and NATIVE_CONV1D_CARDS.match(card_name(device)):
            raise UserError(
                f"npu_config leaves the upsampling, with a kernel of {module.kernel_size[0]}, to CANN's own operator,"
                f" which takes at most {LARGEST}: set conv_transpose_as_product or conv_transpose_on_cpu to auto or on"
            )


def choose(config: NpuConfig, device: Device) -> tuple[dict[str, bool], str]:
    """Each part of the patch on or off, and why."""
    automatic, why = _automatic(device)
    configured = {name: getattr(config, name) == "on" for name in automatic if getattr(config, name) != "auto"}
    reasons = [f"as configured: {', '.join(configured)}"] if configured else []
    if len(configured) < len(automatic):
        reasons.append(f"auto: {why}")
    if configured.get("conv_transpose_as_product"):
        automatic["conv_transpose_on_cpu"] = False
    wanted = automatic | configured
    wanted["conv_transpose_as_product"] &= not wanted["conv_transpose_on_cpu"]
    return wanted, "; ".join(reasons)


def _automatic(device: Device) -> tuple[dict[str, bool], str]:
    """The parts of the patch that the CANN and the card found need, and why."""
    everything = dict(
        conv1d_as_conv2d=True, conv_transpose_on_cpu=True, conv_transpose_as_product=True, logdet_on_cpu=True
    )
    if device.type != "npu":
        return dict.fromkeys(everything, False), f"nothing is needed on {device.type}"
    version, card = cann_version(), card_name(device)
    cann = f"CANN {'.'.join(map(str, version))}" if version else "CANN of unknown version"
    if not version or version < NATIVE_CONV1D_SINCE:
        return everything, f"{cann} on {card} is treated like 5.0.3"
    if not NATIVE_CONV1D_CARDS.match(card):
        return everything, f"{card} is treated as with CANN 5.0.3, even with {cann}"
    convolutions_native = everything | dict(conv1d_as_conv2d=False, conv_transpose_on_cpu=False)
    return convolutions_native, f"{cann} on {card} has native 1-D convolutions"
