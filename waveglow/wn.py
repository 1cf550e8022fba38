"""The network inside WaveGlow's affine couplings.

Shapes: B clips, L groups of samples, C channels.
"""

import operator
from collections.abc import Callable, Iterable
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from common.layers.conv import Conv1d, Kernel, composed
from common.layers.module_list import ModuleList
from waveglow.conditioning import FrameRate, GroupRate

Convolution = Callable[[Tensor], Tensor]


class _Gate(torch.autograd.Function):
    """tanh(filter) * sigmoid(gate) of the two halves of the channels of x + condition.

    Both halves of the gradient are computed in place, and the tanh is made of a sigmoid, which
    CPUs compute up to ten times as fast.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, condition: Tensor) -> Tensor:
        """x, condition [B, 2C, L] -> [B, C, L].

        x is overwritten: nobody needs the output of a convolution again. Autograd refuses an x that somebody does.
        """
        ctx.layout = x.shape, x.stride()
        x = x.detach().add_(condition)
        filter_, gate = x.chunk(2, dim=1)
        falling, gate = (-2 * filter_).sigmoid_(), torch.sigmoid(gate)
        ctx.save_for_backward(falling, gate)
        return torch.addcmul(gate, falling, gate, value=-2)  # tanh(y) = 1 - 2 sigmoid(-2y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the result [B, C, L] -> those of x and condition [B, 2C, L], which are the same."""
        falling, gate = ctx.saved_tensors
        grad_x = gradient.new_empty_strided(*ctx.layout)
        grad_filter, grad_gate = grad_x.chunk(2, dim=1)
        passed = gradient * gate
        through = torch.addcmul(passed, passed, falling, value=-2)  # passed * tanh
        torch.addcmul(through, through, gate, value=-1, out=grad_gate)
        torch.addcmul(passed.sub_(through), through, falling, value=2, out=grad_filter)  # passed * (1 - tanh^2)
        return grad_x, grad_x


class _GateOnCard(torch.autograd.Function):
    """The same by two of PyTorch's kernels forward and two back, where a tanh is cheap: half the memory traffic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, condition: Tensor) -> Tensor:
        """As ``_Gate.forward``, which overwrites x: x, condition [B, 2C, L] -> [B, C, L]."""
        x = x.detach().add_(condition)
        x.chunk(2, dim=1)[0].tanh_()
        ctx.save_for_backward(x)
        return F.glu(x, dim=1)  # filter * sigmoid(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """As ``_Gate.backward``: [B, C, L] -> twice [B, 2C, L]."""
        (x,) = ctx.saved_tensors
        # In the memory layout of x, which by itself this kernel does not keep.
        grad_x = torch.ops.aten.glu_backward.grad_input(gradient, x, 1, grad_input=torch.empty_like(x))
        filter_, grad_filter = (each.chunk(2, dim=1)[0] for each in (x, grad_x))
        torch.ops.aten.tanh_backward.grad_input(grad_filter, filter_, grad_input=grad_filter)
        return grad_x, grad_x


def _gated(x: Tensor, condition: Tensor) -> Tensor:
    """tanh(filter) * sigmoid(gate) of the two halves of the channels of x + condition, each [B, 2C, L] -> [B, C, L].

    x may be overwritten.
    """
    # PyTorch before 2.2 does not say whether it compiles.
    if torch.onnx.is_in_onnx_export() or getattr(torch.compiler, "is_compiling", bool)():
        # Whoever rewrites the operators fares best with the formula.
        filter_, gate = (x + condition).chunk(2, dim=1)
        return torch.tanh(filter_) * torch.sigmoid(gate)
    return (_GateOnCard if x.is_cuda else _Gate).apply(x, condition)


class _Split(torch.autograd.Function):
    """The first n channels and the others; their gradients are joined in the memory layout of the whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """x [B, C, L] -> [B, n, L], [B, C - n, L]."""
        ctx.layout, ctx.n = (x.shape, x.stride()), n
        return x[:, :n], x[:, n:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_first: Tensor, grad_others: Tensor) -> tuple[Tensor, None]:
        """Gradients of both parts, [B, n, L] and [B, C - n, L] -> that of x [B, C, L]."""
        grad_x = grad_first.new_empty_strided(*ctx.layout)
        grad_x[:, : ctx.n] = grad_first
        grad_x[:, ctx.n :] = grad_others
        return grad_x, None


class WN(nn.Module):
    """The WaveNet-like network inside an affine coupling: not causal, dilation doubling per layer.

    Nothing nonlinear lies between ``start`` and the first of ``in_layers``, nor between the skip halves of
    ``res_skip_layers`` and ``end``. Each of these pairs is computed as one convolution, with the few channels
    of the audio on one side, which saves a seventh of the operations.
    """

    def __init__(self, n_in_channels: int, n_mel_channels: int, n_layers: int, n_channels: int, kernel_size: int):
        super().__init__()
        self.n_layers = n_layers
        self.n_channels = n_channels
        self.start = Conv1d(n_in_channels, n_channels, weight_norm=True)
        self.cond_layer = Conv1d(n_mel_channels, 2 * n_channels * n_layers, weight_norm=True)
        self.in_layers = ModuleList(
            Conv1d(n_channels, 2 * n_channels, kernel_size, dilation=2**i, weight_norm=True) for i in range(n_layers)
        )
        # The last layer has no next one to pass a residual to.
        self.res_skip_layers = ModuleList(
            Conv1d(n_channels, 2 * n_channels if i < n_layers - 1 else n_channels, weight_norm=True)
            for i in range(n_layers)
        )
        # With zeros here each coupling starts as the identity, which keeps early training stable.
        self.end = Conv1d(n_channels, 2 * n_in_channels)
        for parameter in self.end.parameters():
            nn.init.zeros_(parameter)
        self.is_fused = False

    def forward(self, audio: Tensor, mel: GroupRate | FrameRate, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """audio [B, C, L] and the mel spectrogram -> log_s, b, each [B, C, L].

        ``inside`` [1, 1, L]: where it is 0, behind a clip's end, the convolutions see zeros, as they do behind L. The
        audio must be 0 there.
        """
        hidden = self.start(audio)
        if inside is None:
            with_ones = F.pad(audio, (0, 0, 0, 1), value=1)
        else:
            with_ones = torch.cat([audio, inside.to(audio.dtype).expand(len(audio), 1, -1)], dim=1)
            inside = inside.to(hidden.dtype)
            hidden = hidden * inside
        first, res_skips, output = self._merged()
        conditions = mel.conditions(self.cond_layer, self.n_layers)
        for i, (condition, res_skip) in enumerate(zip(conditions, res_skips)):
            x = self.in_layers[i](hidden) if i > 0 else first(with_ones)
            x = res_skip(_gated(x, condition))
            if i < self.n_layers - 1:
                residual, x = _Split.apply(x, self.n_channels)
                hidden = hidden + residual if inside is None else torch.addcmul(hidden, residual, inside)
            output = output + x
        b, log_s = output.chunk(2, dim=1)
        return log_s, b

    def at_group_rate(self, audio: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` with the tensor of a ``GroupRate`` [B, channels, L], for callers that only pass tensors on."""
        return self(audio, GroupRate(mel))

    def _merged(self) -> tuple[Convolution, Iterable[Convolution], Tensor]:
        """The fused layers, computed in place of ``in_layers[0]``, ``res_skip_layers`` and ``end``.

        The first takes the audio and a channel of ones. The others give the residual, which the last lacks, and
        their share of what ``end`` gives; the share that comes from biases alone is the third, [2C, 1].
        """
        if self.is_fused:
            return self.in_layers[0], self.res_skip_layers, self.end.kernel()[1][:, None]
        first, res_skips, bias = self._merged_kernels()
        with_kernel = lambda layer, kernel: partial(layer.convolve, weight=kernel[0], bias=kernel[1])  # noqa: E731
        others = list(map(with_kernel, self.res_skip_layers, res_skips))
        return with_kernel(self.in_layers[0], first), others, bias[:, None]

    def _merged_kernels(self) -> tuple[Kernel, list[Kernel], Tensor]:
        """The kernels of the convolutions of ``_merged``, and what is to be the bias of ``end``, [2C]."""
        n = self.n_channels
        weight, bias = self.in_layers[0].kernel()
        first = composed(weight, *self.start.kernel()), bias
        kernels = [layer.kernel() for layer in self.res_skip_layers]
        # The part for the residual, of n channels or none, and the part to be skipped.
        weights = [weight.split((len(bias) - n, n)) for weight, bias in kernels]
        biases = [bias.split((len(bias) - n, n)) for _, bias in kernels]
        # What the layers skip is added up in front of end: all of them side by side are one layer.
        skipped = torch.cat([weight for _, weight in weights], dim=1)
        bias = reduce(operator.add, (bias.float() for _, bias in biases))
        # As a view, by which its gradient gets the strides of the weight: DDP warns of others.
        end = self.end.weight.flatten(1)[..., None]
        *ends, constant = composed(end, skipped, bias).split(n, dim=1)
        res_skips = [
            (torch.cat([weight, end]), F.pad(bias, (0, len(end))))
            for (weight, _), (bias, _), end in zip(weights, biases, ends)
        ]
        return first, res_skips, self.end.bias + constant[:, 0, 0]

    @torch.no_grad()
    def fuse(self) -> None:
        """Keep only the merged kernels, and not those that they are made from; for inference.

        ``end`` keeps a weight that nothing needs any more.
        """
        if self.is_fused:
            return
        first, res_skips, bias = self._merged_kernels()
        for layer, kernel in zip((self.in_layers[0], *self.res_skip_layers), (first, *res_skips)):
            layer.replace_kernel(*kernel)
        for layer in (self.start, self.cond_layer, *self.in_layers[1:]):
            layer.replace_kernel(layer.effective_weight(), layer.bias)
        self.end.replace_kernel(self.end.weight, bias)
        self.is_fused = True

    @torch.no_grad()
    def round_kernels(self, dtype: torch.dtype) -> None:
        """Keep the large kernels, once fused, in the precision of autocast, which would convert them at every call."""
        for layer in (self.cond_layer, *self.in_layers, *self.res_skip_layers):
            weight, bias = layer.kernel()
            layer.replace_kernel(weight.to(dtype), bias.to(dtype))
