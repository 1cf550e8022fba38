"""WaveGlow (Prenger, Valle, Catanzaro 2018, arXiv:1811.00002).

Parameter names and shapes are those of NVIDIA/waveglow, so state dicts interchange.
Shapes: B clips, N audio samples, T mel frames, L = N / n_group groups of samples.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.layers import Conv1d, LogAbsDet, composed

Convolution = Callable[[Tensor], Tensor]
Kernel = tuple[Tensor, Tensor]
"Weight [out, in, k] and bias [out]."


class Invertible1x1Conv(nn.Module):
    """Mixes the channels of one flow step by an invertible matrix (Glow, arXiv:1807.03039)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv1d(channels, channels, bias=False)
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        if torch.linalg.det(rotation) < 0:
            rotation[:, 0] *= -1
        # NpuFusedAdam takes only contiguous parameters, and what qr returns is stored by columns.
        self.conv.weight.data = rotation.contiguous()[..., None]
        self.log_abs_det = LogAbsDet()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, L] -> the mixed x and the log-determinant of the map, summed over B and L."""
        log_det = x.shape[0] * x.shape[2] * self.log_abs_det(self.conv.weight[..., 0])
        return self.conv(x), log_det

    def inverse(self, x: Tensor) -> Tensor:
        """Undo ``forward``: x [B, C, L] -> [B, C, L]."""
        inverse = torch.linalg.inv(self.conv.weight[..., 0].float()).to(x.dtype)
        return self.conv.convolve(x, inverse[..., None])


class _Gate(torch.autograd.Function):
    """tanh(filter) * sigmoid(gate) of the two halves of the channels of x + condition.

    Both halves of the gradient are computed in place, and the tanh is made of a sigmoid, which
    CPUs compute up to ten times as fast.
    """

    @staticmethod
    def forward(ctx, x: Tensor, condition: Tensor) -> Tensor:
        """x, condition [B, 2C, L] -> [B, C, L]; without gradients x is overwritten, which saves memory and time."""
        x = x + condition if any(ctx.needs_input_grad) else x.add_(condition)
        filter_, gate = x.chunk(2, dim=1)
        falling, gate = (-2 * filter_).sigmoid_(), torch.sigmoid(gate)
        ctx.save_for_backward(falling, gate)
        ctx.layout = x.shape, x.stride()
        return torch.addcmul(gate, falling, gate, value=-2)  # tanh(y) = 1 - 2 sigmoid(-2y)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        falling, gate = ctx.saved_tensors
        of_x = gradient.new_empty_strided(*ctx.layout)
        of_filter, of_gate = of_x.chunk(2, dim=1)
        passed = gradient * gate
        through = torch.addcmul(passed, passed, falling, value=-2)  # passed * tanh
        torch.addcmul(through, through, gate, value=-1, out=of_gate)
        torch.addcmul(passed.sub_(through), through, falling, value=2, out=of_filter)  # passed * (1 - tanh^2)
        return of_x, of_x


class _Split(torch.autograd.Function):
    """The first n channels and the others; their gradients are joined in the memory layout of the whole."""

    @staticmethod
    def forward(ctx, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """x [B, C, L] -> [B, n, L], [B, C - n, L]."""
        ctx.layout, ctx.n = (x.shape, x.stride()), n
        return x[:, :n], x[:, n:]

    @staticmethod
    @once_differentiable
    def backward(ctx, of_first: Tensor, of_others: Tensor) -> tuple[Tensor, None]:
        of_x = of_first.new_empty_strided(*ctx.layout)
        of_x[:, : ctx.n] = of_first
        of_x[:, ctx.n :] = of_others
        return of_x, None


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
        self.in_layers = nn.ModuleList(
            Conv1d(n_channels, 2 * n_channels, kernel_size, dilation=2**i, weight_norm=True) for i in range(n_layers)
        )
        # The last layer has nobody to hand a residual to.
        self.res_skip_layers = nn.ModuleList(
            Conv1d(n_channels, 2 * n_channels if i < n_layers - 1 else n_channels, weight_norm=True)
            for i in range(n_layers)
        )
        # With zeros here each coupling starts as the identity, which keeps early training stable.
        self.end = Conv1d(n_channels, 2 * n_in_channels)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)
        self.is_fused = False

    def forward(self, audio: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """audio [B, C, L], mel [B, n_mel * n_group, L] -> log_s, b, each [B, C, L]."""
        hidden = self.start(audio)
        first, res_skips, output = self._merged()
        conditions = self.cond_layer.forward_in_parts(mel, self.n_layers)
        for i, (condition, res_skip) in enumerate(zip(conditions, res_skips)):
            x = self.in_layers[i](hidden) if i > 0 else first(F.pad(audio, (0, 0, 0, 1), value=1))
            x = res_skip(_Gate.apply(x, condition))
            if i < self.n_layers - 1:
                residual, x = _Split.apply(x, self.n_channels)
                hidden = hidden + residual
            output = output + x
        b, log_s = output.chunk(2, dim=1)
        return log_s, b

    def _merged(self) -> tuple[Convolution, Sequence[Convolution], Tensor]:
        """What is computed in place of ``in_layers[0]``, ``res_skip_layers`` and ``end``.

        The first takes the audio and a channel of ones. The others give the residual, which the last has not, and
        their share of what ``end`` gives; the share that comes from biases alone is the third, [2C, 1].
        """
        if self.is_fused:
            return self.in_layers[0], self.res_skip_layers, self.end.bias[:, None]
        first, res_skips, bias = self._merged_kernels()
        with_kernel = lambda layer, kernel: partial(layer.convolve, weight=kernel[0], bias=kernel[1])  # noqa: E731
        others = list(map(with_kernel, self.res_skip_layers, res_skips))
        return with_kernel(self.in_layers[0], first), others, bias[:, None]

    def _merged_kernels(self) -> tuple[Kernel, list[Kernel], Tensor]:
        """The kernels of the convolutions of ``_merged``, and what is to be the bias of ``end``, [2C]."""
        layer, n = self.in_layers[0], self.n_channels
        first = composed(layer.effective_weight(), self.start.effective_weight(), self.start.bias), layer.bias
        # For the residual, n channels or none, and to be skipped.
        weights = [layer.effective_weight().split((len(layer.bias) - n, n)) for layer in self.res_skip_layers]
        biases = [layer.bias.split((len(layer.bias) - n, n)) for layer in self.res_skip_layers]
        # What the layers skip is added up in front of end: all of them side by side are one layer.
        skipped = torch.cat([weight for _, weight in weights], dim=1)
        bias = sum(bias.float() for _, bias in biases)
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
        """Keep the kernels that are computed with and not those that they are made of; for inference.

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


# The other kind of checkpoint keeps the graph, whose small parts between freed activations fragment a CPU's memory.
# Nothing is drawn at random.
_recomputed = partial(checkpoint, use_reentrant=True, preserve_rng_state=False)


class WaveGlow(nn.Module):
    """A flow between audio and white noise, conditioned on the mel spectrogram.

    Args:
        n_mel_channels: mel bands of the spectrogram.
        n_flows: flow steps, each an ``Invertible1x1Conv`` and an affine coupling by ``WN``.
        n_group: neighbouring samples that form one group, the channels of the flow.
        n_early_every, n_early_size: every so many flows, so many channels leave the flow.
        WN_config: ``n_layers``, ``n_channels``, ``kernel_size`` of each ``WN``.
        hop_length: samples of audio a mel frame, the stride of the upsampling.
        upsample_kernel: width of the upsampling convolution in samples.

    Attributes: ``recompute``, whether training keeps no activations of a ``WN`` and computes them
    again in the backward pass.

    Raises ValueError for sizes that do not fit together.
    """

    def __init__(
        self,
        n_mel_channels: int,
        n_flows: int,
        n_group: int,
        n_early_every: int,
        n_early_size: int,
        WN_config: dict,
        hop_length: int = 256,
        upsample_kernel: int = 1024,
    ):
        super().__init__()
        if n_group % 2 or n_early_size % 2:
            raise ValueError(f"n_group {n_group} and n_early_size {n_early_size} must be even")
        if hop_length % n_group or upsample_kernel < hop_length:
            raise ValueError(
                f"hop_length {hop_length} must be a multiple of n_group {n_group}"
                f" and at most upsample_kernel {upsample_kernel}"
            )
        self.recompute = False
        self.n_group = n_group
        self.n_early_every = n_early_every
        self.n_early_size = n_early_size
        self.hop_length = hop_length
        self.upsample = nn.ConvTranspose1d(n_mel_channels, n_mel_channels, upsample_kernel, stride=hop_length)
        self.convinv = nn.ModuleList()
        self.WN = nn.ModuleList()
        channels = n_group
        for k in range(n_flows):
            channels -= n_early_size if self._exits_before(k) else 0
            if channels < 2:
                raise ValueError(f"n_early_size {n_early_size} every {n_early_every} flows leaves flow {k} no channels")
            self.convinv.append(Invertible1x1Conv(channels))
            self.WN.append(WN(channels // 2, n_mel_channels * n_group, **WN_config))
        self.n_remaining_channels = channels

    def _exits_before(self, k: int) -> bool:
        """Whether channels leave the flow in front of flow step k."""
        return k > 0 and k % self.n_early_every == 0

    def forward(self, mel: Tensor, audio: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Turn audio into noise.

        mel [B, n_mel, T], audio [B, N] in -1..1 with N <= T * hop_length; a last incomplete group
        of samples is dropped. Returns z [B, n_group, L], log_s (a [B, C, L] for each flow) and
        log_det (a float32 scalar for each flow), of which ``WaveGlowLoss`` makes the likelihood.
        """
        groups = audio.shape[1] // self.n_group
        mel = self._upsample(mel, groups)
        x = audio[:, : groups * self.n_group].reshape(-1, groups, self.n_group).transpose(1, 2)

        early, log_s_list, log_det_list = [], [], []
        for k, (convinv, wn) in enumerate(zip(self.convinv, self.WN)):
            if self._exits_before(k):
                early.append(x[:, : self.n_early_size])
                x = x[:, self.n_early_size :]
            x, log_det = convinv(x)
            x_a, x_b = x.chunk(2, dim=1)
            recompute = self.recompute and torch.is_grad_enabled()
            log_s, b = _recomputed(wn, x_a, mel) if recompute else wn(x_a, mel)
            x = torch.cat([x_a, torch.exp(log_s) * x_b + b], dim=1)
            log_s_list.append(log_s)
            log_det_list.append(log_det)
        return torch.cat([*early, x], dim=1), log_s_list, log_det_list

    @torch.no_grad()
    def infer(self, mel: Tensor, sigma: float = 1.0, noise: list[Tensor] | None = None) -> Tensor:
        """Turn noise into audio.

        mel [B, n_mel, T] -> audio [B, T * hop_length]. ``noise`` holds unit-variance tensors, one
        of each of ``noise_shapes``; by default they are drawn here. ``sigma`` scales them.
        """
        batch, _, frames = mel.shape
        if noise is None:
            noise = [torch.randn(s, dtype=mel.dtype, device=mel.device) for s in self.noise_shapes(batch, frames)]
        remaining, *early = noise
        mel = self._upsample(mel, frames * self.hop_length // self.n_group)
        x = sigma * remaining
        for k in reversed(range(len(self.WN))):
            x_a, x_b = x.chunk(2, dim=1)
            log_s, b = self.WN[k](x_a, mel)
            x = torch.cat([x_a, (x_b - b) / torch.exp(log_s)], dim=1)
            x = self.convinv[k].inverse(x)
            if self._exits_before(k):
                x = torch.cat([sigma * early.pop(0), x], dim=1)
        return x.transpose(1, 2).reshape(x.shape[0], -1)

    def noise_shapes(self, batch: int, frames: int) -> list[tuple[int, int, int]]:
        """Shapes [B, C, L] of the noise of ``infer``, in the order it is used: the last exit first."""
        groups = frames * self.hop_length // self.n_group
        early = [self.n_early_size] * sum(self._exits_before(k) for k in range(len(self.WN)))
        return [(batch, channels, groups) for channels in (self.n_remaining_channels, *early)]

    @property
    def context_frames(self) -> int:
        """Mel frames to either side of a place that the audio there depends on."""
        reach = sum(layer.padding for layer in self.WN[0].in_layers) * len(self.WN)
        upsampling = self.upsample.kernel_size[0] // self.hop_length
        return math.ceil(reach * self.n_group / self.hop_length) + upsampling

    def _upsample(self, mel: Tensor, groups: int) -> Tensor:
        """mel [B, n_mel, T] -> [B, n_mel * n_group, groups], the frames at the rate of the groups."""
        mel = self.upsample(mel)[:, :, : groups * self.n_group]
        batch, channels, samples = mel.shape
        if samples < groups * self.n_group:
            raise ValueError(f"the mel spectrogram covers {samples // self.n_group} groups of samples, not {groups}")
        mel = mel.reshape(batch, channels, groups, self.n_group)
        return mel.transpose(1, 2).reshape(batch, groups, channels * self.n_group).transpose(1, 2)

    def fuse(self) -> None:
        """Merge weight norm and other neighbours that are linear into plain weights, for inference."""
        for wn in self.WN:
            wn.fuse()
