"""The layers that devices treat differently: common/layers/npu.py swaps their classes, the models stay as they are."""

import math
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.layers.matmul import dtype_of_products

Kernel: TypeAlias = tuple[Tensor, Tensor]
"Weight [out, in, k] and bias [out] of a convolution."


class Conv1d(nn.Module):
    """1-D convolution that keeps its length, with optional weight norm (Salimans & Kingma 2016).

    Parameters have the names and shapes of ``torch.nn.Conv1d``: ``weight`` [out, in, k] and
    ``bias`` [out]; with weight norm ``weight_g`` [out, 1, 1] and ``weight_v`` [out, in, k] in the
    place of ``weight``, as in NVIDIA's checkpoints.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        dilation: int = 1,
        bias: bool = True,
        weight_norm: bool = False,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the length, not {kernel_size}")
        self.in_channels = in_channels
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = dilation * (kernel_size - 1) // 2
        weight = torch.empty(out_channels, in_channels, kernel_size)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if weight_norm:
            norms = torch.empty(out_channels, 1, 1)
            if not norms.is_meta:  # without memory this operator takes PyTorch seconds to import
                norms = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
            self.weight_g = nn.Parameter(norms)
            self.weight_v = nn.Parameter(weight)
        else:
            self.weight = nn.Parameter(weight)
        bound = 1 / math.sqrt(in_channels * kernel_size)
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def effective_weight(self) -> Tensor:
        """The weight [out, in, k] that is convolved with: ``weight_g * weight_v / |weight_v|``."""
        if "weight" in self._parameters:
            return self.weight
        # float32, since half precision overflows in the sum of squares; the fused operator under
        # torch.nn.utils.weight_norm takes half the time of the same formula in public operators.
        weight = torch._weight_norm(self.weight_v.float(), self.weight_g.float(), 0)
        return weight.to(self.weight_v.dtype)

    def kernel(self) -> Kernel:
        """``effective_weight`` and bias [out] of a convolution that has one."""
        assert self.bias is not None
        return self.effective_weight(), self.bias

    @torch.no_grad()
    def replace_kernel(self, weight: Tensor, bias: Tensor | None) -> None:
        """Compute with this weight [out, in, k] and bias [out] from now on, without weight norm; for inference."""
        for name in ("weight", "weight_g", "weight_v"):
            self._parameters.pop(name, None)
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.contiguous(), requires_grad=False)
        self.in_channels = weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, T] -> [B, out, T]."""
        return self.convolve(x, self.effective_weight(), self.bias)

    def forward_in_parts(self, x: Tensor, parts: int) -> Iterator[Tensor]:
        """``forward(x).chunk(parts, dim=1)``, each part [B, out / parts, T] computed when it is asked for.

        A wide output that is used a part at a time then stays in the cache and off the memory. A CUDA card makes
        all parts at once: launching a convolution for each takes longer than computing them.
        """
        if x.is_cuda:
            yield from self(x).chunk(parts, dim=1)
            return
        for weight, bias in zip(*(each.chunk(parts) for each in self.kernel())):
            yield self.convolve(x, weight, bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of this layer with other weights [out, in, k]: x [B, in, T] -> [B, out, T]."""
        return F.conv1d(x, weight, bias, padding=self.padding, dilation=self.dilation)


def windows(x: Tensor, taps: int, dilation: int, padding: float = 0) -> Tensor:
    """What each output of a convolution that keeps the length sees, tap by tap: x [B, T, C] -> [B, T, taps * C].

    Beyond the ends lies ``padding``.
    """
    if taps == 1:
        return x
    reach = dilation * (taps - 1) // 2
    padded = F.pad(x, (0, 0, reach, reach), value=padding)
    starts = range(0, 2 * reach + 1, dilation)
    return torch.cat([padded[:, start : start + x.shape[1]] for start in starts], dim=2)


def composed(outer: Tensor, inner: Tensor, inner_bias: Tensor) -> Tensor:
    """The kernel of one convolution that does what two do, the first of them of width 1.

    outer [out, mid, k], inner [mid, in, 1], inner_bias [mid] -> [out, in + 1, k]. Its last input must be ones,
    which bring in the inner bias; where ``outer`` pads they are zeros, since the padding follows the inner convolution.
    """
    with torch.autocast(outer.device.type, enabled=False):
        affine = torch.cat([inner[..., 0], inner_bias[:, None]], dim=1)
        return (outer.transpose(1, 2).float() @ affine.float()).transpose(1, 2).to(outer.dtype)


class Upsampling(nn.ConvTranspose1d):
    """A transposed convolution that brings mel frames to the rate of the samples."""

    weight: nn.Parameter
    "[in, out, k]"
    bias: nn.Parameter
    "[out]"
    composable = True
    "Whether a linear layer behind it may absorb it, so that it never runs by itself."

    def __init__(self, channels: int, kernel_size: int, stride: int):
        super().__init__(channels, channels, kernel_size, stride=stride)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        """x [B, in, T] -> [B, out, (T - 1) * stride + k]."""
        if x.device.type == "cpu" and dtype_of_products(x) == torch.bfloat16:
            return self.in_float32(x)  # in bfloat16 oneDNN has ended the process with strides of 600 and 800
        return super().forward(x)

    def in_float32(self, x: Tensor) -> Tensor:
        """x [B, in, T] -> [B, out, ...] as ``forward``, computed in float32 whatever the precision."""
        with torch.autocast(x.device.type, enabled=False):
            y = F.conv_transpose1d(x.float(), self.weight.float(), self.bias.float(), self.stride)
        return y.to(x.dtype)

    @property
    def reach(self) -> int:
        """Frames that a sample depends on; 0 if not all samples depend on as many."""
        frames, rest = divmod(self.kernel_size[0], self.stride[0])
        return 0 if rest else frames

    def interpolates(self) -> bool:
        """Whether it keeps the channels apart, with taps on a line over each stride, but for half precision's
        rounding."""
        if not self.reach:
            return False
        weight = self.weight.detach()
        taps = weight.diagonal().t().float().unflatten(1, (-1, self.stride[0]))  # [channels, r, stride]
        line = torch.lerp(taps[..., :1], taps[..., -1:], torch.linspace(0, 1, self.stride[0], device=taps.device))
        rounding = max(torch.finfo(weight.dtype).eps, torch.finfo(torch.float16).eps)
        is_straight = ((taps - line).abs() <= rounding * taps.abs().amax((1, 2), keepdim=True)).all()
        is_diagonal = torch.count_nonzero(weight) == torch.count_nonzero(taps)
        return bool(is_straight & is_diagonal)


class LogAbsDet(nn.Module):
    """log|det| of a square matrix in float32.

    The sign is free: training may carry a kernel across zero determinant.
    """

    def forward(self, matrix: Tensor) -> Tensor:
        """matrix [n, n] -> scalar."""
        return torch.linalg.slogdet(matrix.float())[1]
