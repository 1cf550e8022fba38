"""Matrix products where PyTorch by itself takes a slower way.

On CPUs in float32 it takes MKL, which on AMD's processors needs up to twice the time that oneDNN does.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from common.device import Device

ROWS_ON_CARD = 8
"""Rows that a CUDA card computes in the place of one in float32: to decode a text took an H100 2.4 times as long as to
decode eight together."""
FEW_ROWS = 3
"Rows up to which MKL is faster in float32 on Intel's processors, 1.2 times with two threads; oneDNN is from then on."


def constant_linear(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """``x -> F.linear(x, weight, bias)`` for a weight [O, K] that stays as it is; x [R, K] without a gradient.

    A CUDA card gets a single row in float32 as several. A CPU gets the weight in oneDNN's own order once and for all.
    Otherwise it is put in that order, or read in an unfavourable one, at each product: at 16 rows that takes 1.5 times
    the time in bfloat16, 4 times in float32 on AMD's processors.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if weight.is_cuda and weight.dtype == torch.float32:
        return lambda x: F.linear(x if len(x) != 1 else x.expand(ROWS_ON_CARD, -1), weight, bias)[: len(x)]
    if not can_pack(weight):
        return lambda x: F.linear(x, weight, bias)
    packed: Tensor | None = None
    few = FEW_ROWS if weight.dtype == torch.float32 and has_intel_processor() else 0

    def product(x: Tensor) -> Tensor:
        if len(x) <= few:
            return F.linear(x, weight, bias)
        nonlocal packed
        if packed is None:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        rows = x
        if len(x) == 1 and x.dtype == torch.bfloat16:
            # oneDNN adds up a single row in another order than several. In bfloat16 that would be heard: with two, a
            # row's product is the same among others.
            rows = x.expand(2, -1).contiguous()
        return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")[: len(x)]

    return product


@cache
def has_intel_processor() -> bool:
    """Whether MKL takes its fast ways here. Unknown processors count as others."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN computes with such a weight [O, K] here."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _has_bfloat16())


def is_slow_in_half(device: Device) -> bool:
    """Whether half precision is emulated there, by a processor without bfloat16: float32 is several times as fast."""
    return device.type == "cpu" and not _has_bfloat16()


def _has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` for training: x [..., in] of at least one row, weight [out, in], bias [out]
    -> [..., out]."""
    if not (torch.is_grad_enabled() and _is_for_onednn(x)):
        return F.linear(x, weight, bias)
    y = F.conv2d(_as_image(x.flatten(0, -2)), weight[:, :, None, None], bias)
    return y.squeeze(2).transpose(1, 2).view(*x.shape[:-1], -1)


def product_over_rows(x: Tensor, y: Tensor) -> Tensor:
    """x.T @ y of x [R, M], y [R, N], without a gradient of its own."""
    if not _is_for_onednn(x):
        return x.t() @ y
    return conv2d_weight(_as_image(y), (x.shape[1], y.shape[1], 1, 1), _as_image(x)).flatten(1)


def dtype_of_products(x: Tensor) -> torch.dtype:
    """The precision that a product with x [...] is computed in, which autocast may choose."""
    return torch.matmul(x.new_empty(1, 1), x.new_empty(1, 1)).dtype


def _is_for_onednn(x: Tensor) -> bool:
    """Whether oneDNN is to compute a product with x [...]."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _as_image(x: Tensor) -> Tensor:
    """x [R, C] -> [1, C, 1, R] with the channels last, which a convolution of width 1 multiplies with its matrix."""
    return x[None].transpose(1, 2).unsqueeze(2)
