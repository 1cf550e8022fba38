"""Convolutions as products of 8-bit integers, for inference on CPUs that have instructions for them (VNNI).

Weights are rounded once, with a scale for each output channel, inputs each time, with one scale for
each clip; sums are exact. Everything else stays in the precision of the inputs. The operators
are PyTorch's own for quantized models; they have no public name.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from common.device import Device
from common.layers.conv import Conv1d, windows
from common.program import UserError

FEWEST = 16
"Convolutions with fewer channels, in or out, are left alone: WaveGlow's first and last, which see or make the audio."
ZERO = 128
"The byte that stands for 0."


class Int8Conv1d(Conv1d):
    """A ``Conv1d`` without weight norm and with a bias."""

    products: list["Product"]
    "One for each part, from the first call on."

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, T] -> [B, out, T]."""
        (y,) = self.forward_in_parts(x, 1)
        return y

    def forward_in_parts(self, x: Tensor, parts: int) -> Iterator[Tensor]:
        """x [B, in, T] -> ``parts`` times [B, out / parts, T].

        The first call fixes the number of parts and drops the float32 weights.
        """
        if self.bias is not None:
            self.products = [Product(*part) for part in zip(*(each.chunk(parts) for each in self.kernel()))]
            del self.weight
            self.bias = None
        rows, scales = quantize_input(x.transpose(1, 2))
        rows = windows(rows, self.kernel_size, self.dilation, padding=ZERO)
        for product in self.products:
            yield product(rows, scales, x.dtype).transpose(1, 2)


class Product:
    """A matrix product with a weight that is already in integers and in the layout they are read in."""

    def __init__(self, weight: Tensor, bias: Tensor):
        """weight [out, in, k], bias [out]"""
        weight = weight.float().transpose(1, 2).flatten(1)
        self.scales = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        self.zeros = torch.zeros(len(weight), dtype=torch.int8)
        self.bias = bias.float()
        integers = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(integers, None)

    def __call__(self, rows: Tensor, scales: list[float], dtype: torch.dtype) -> Tensor:
        """rows [B, T, k * in] bytes, B scales -> [B, T, out]."""
        constants: tuple = self.weight, self.scales, self.zeros, self.bias, 1.0, 0, dtype, "none", [], ""
        clips = [torch.ops.onednn.qlinear_pointwise(clip, scale, ZERO, *constants) for clip, scale in zip(rows, scales)]
        return torch.stack(clips) if len(clips) > 1 else clips[0][None]


def quantize_input(x: Tensor) -> tuple[Tensor, list[float]]:
    """x [B, T, in] -> bytes, and B scales with which x is about scale * (bytes - ZERO)."""
    # Clip by clip: along an axis aminmax takes 15 times as long.
    clips, scales = zip(*map(_quantize_clip, x))
    return torch.stack(clips) if len(clips) > 1 else clips[0][None], list(scales)


def _quantize_clip(x: Tensor) -> tuple[Tensor, float]:
    """x [T, in] -> bytes, and their scale."""
    low, high = torch.aminmax(x)
    scale = max(max(-low.item(), high.item()) / 127, torch.finfo(torch.float32).tiny)
    # A float32 of this size has no fraction: the addition rounds, and leaves the integer in the lowest byte.
    rounded = torch.add(torch.tensor([1.5 * 2**23 + ZERO]), x.float(), alpha=1 / scale)
    return rounded.view(torch.int32).to(torch.uint8), scale


def use_int8(model: nn.Module, device: Device) -> None:
    """Let the model's larger convolutions run this way. They have no weight norm and are not trained or saved later.

    Raises UserError where that is not possible.
    """
    reason = why_no_int8(device)
    if reason:
        raise UserError(f"int8 {reason}: take another precision")
    for module in model.modules():
        if isinstance(module, Conv1d) and module.bias is not None and min(module.weight.shape[:2]) >= FEWEST:
            module.__class__ = Int8Conv1d


def why_no_int8(device: Device) -> str:
    """Why this cannot be used; empty if it can."""
    if device.type != "cpu":
        return "is for CPUs only"
    # Without these instructions the sums of products overflow.
    if not any(flag in _cpu_flags() for flag in ("avx512_vnni", "avx_vnni")):
        return "needs a processor with VNNI"
    try:
        sums = Product(torch.ones(64, 64, 1), torch.zeros(64))(*quantize_input(torch.ones(1, 1, 64)), torch.float32)
    except (AttributeError, RuntimeError, TypeError):  # the operators have changed over time
        return f"does not run with PyTorch {torch.__version__}"
    # oneDNN can be kept from using what the processor has.
    return "" if torch.allclose(sums, torch.full((), 64.0)) else "is told not to use VNNI"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
