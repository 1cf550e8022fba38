"""WaveGlow (Prenger, Valle, Catanzaro 2018, arXiv:1811.00002).

Parameter names and shapes are those of NVIDIA/waveglow, so state dicts interchange.
Shapes: B clips, N audio samples, T mel frames, L = N / n_group groups of samples.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.layers.conv import Conv1d, LogAbsDet, Upsampling
from common.layers.module_list import ModuleList
from waveglow import conditioning
from waveglow.conditioning import FrameRate, GroupRate
from waveglow.wn import WN

# The kind that is not reentrant keeps the graph, whose small parts between freed activations fragment a CPU's memory.
# This one needs an input with a gradient, and a backward pass outside of autocast. Nothing is drawn at random.
_recomputed = partial(checkpoint, use_reentrant=True, preserve_rng_state=False)


def random_rotation(channels: int) -> Tensor:
    """A matrix [C, C] of determinant 1, contiguous, which NpuFusedAdam asks of parameters."""
    rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
    rotation[:, 0] *= torch.linalg.det(rotation).sign()
    return rotation.contiguous()


class Invertible1x1Conv(nn.Module):
    """Mixes the channels of one flow step by an invertible matrix (Glow, arXiv:1807.03039)."""

    known_inverse: Tensor | None
    "[C, C, 1], once fused."

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv1d(channels, channels, bias=False)
        if not self.conv.weight.is_meta:  # as in Conv1d, its operators are slow to import
            self.conv.weight.data = random_rotation(channels)[..., None]
        self.log_abs_det = LogAbsDet()
        self.register_buffer("known_inverse", None, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, L] -> the mixed x and the log-determinant of the map, summed over B and L."""
        log_det = x.shape[0] * x.shape[2] * self.log_abs_det(self.conv.weight[..., 0])
        return self.conv(x), log_det

    def inverse(self, x: Tensor) -> Tensor:
        """Undo ``forward``: x [B, C, L] -> [B, C, L]."""
        inverse = self.inverse_kernel() if self.known_inverse is None else self.known_inverse
        return self.conv.convolve(x, inverse.to(x.dtype))

    @torch.no_grad()
    def inverse_kernel(self) -> Tensor:
        """The kernel [C, C, 1] that undoes this one, computed on the host: an NPU has no float64 and no inverse."""
        inverse = torch.linalg.inv(self.conv.weight[..., 0].cpu().double())
        return inverse.to(self.conv.weight)[..., None]

    def fuse(self) -> None:
        """Keep the inverse of the kernel as it is now; for inference."""
        self.known_inverse = self.inverse_kernel()


class WaveGlow(nn.Module):
    """A flow between audio and white noise, conditioned on the mel spectrogram.

    Args:
        n_mel_channels: mel bands of the spectrogram.
        n_flows: flow steps, each an ``Invertible1x1Conv`` and an affine coupling by ``WN``.
        n_group: neighbouring samples that form one group, the channels of the flow.
        n_early_every, n_early_size: every so many flows, so many channels leave the flow.
        WN_config: ``n_layers``, ``n_channels``, ``kernel_size`` of each ``WN``.
        hop_length: samples of audio a mel frame, the stride of the upsampling. Where it is no multiple of n_group,
            groups lie across frames.
        upsample_kernel: width of the upsampling convolution in samples.

    Attributes: ``recompute``, whether training keeps no activations of a ``WN`` and computes them
    again in the backward pass; ``is_composed``, whether ``fuse`` has merged the upsampling into each ``cond_layer``,
    None before; ``on_lines``, whether the merged upsampling interpolates; ``groups_per_frame``, None where groups lie
    across frames.

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
        # Where a frame is no whole number of groups, the last group may reach beyond the last frame.
        least = hop_length + (n_group - 1 if hop_length % n_group else 0)
        if upsample_kernel < least:
            raise ValueError(f"upsample_kernel {upsample_kernel} must be at least {least} with hop_length {hop_length}")
        self.recompute = False
        self.is_composed: bool | None = None
        self.on_lines = False
        self.n_group = n_group
        self.n_early_every = n_early_every
        self.n_early_size = n_early_size
        self.hop_length = hop_length
        self.groups_per_frame = hop_length // n_group if hop_length % n_group == 0 else None
        self.upsample = Upsampling(n_mel_channels, upsample_kernel, hop_length)
        self.convinv: ModuleList[Invertible1x1Conv] = ModuleList()
        self.WN: ModuleList[WN] = ModuleList()
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
        log_det (a float32 scalar for each flow), from which ``WaveGlowLoss`` makes the likelihood.
        """
        groups = audio.shape[1] // self.n_group
        recompute = self.recompute and torch.is_grad_enabled()
        condition = self._conditioning(mel, groups, plainly=recompute)
        x = audio[:, : groups * self.n_group].reshape(-1, groups, self.n_group).transpose(1, 2)

        early, log_s_list, log_det_list = [], [], []
        for k, (convinv, wn) in enumerate(zip(self.convinv, self.WN)):
            if self._exits_before(k):
                early.append(x[:, : self.n_early_size])
                x = x[:, self.n_early_size :]
            x, log_det = convinv(x)
            x_a, x_b = x.chunk(2, dim=1)
            log_s, b = _recomputed(wn.at_group_rate, x_a, *condition) if recompute else wn(x_a, condition)
            x = torch.cat([x_a, torch.exp(log_s) * x_b + b], dim=1)
            log_s_list.append(log_s)
            log_det_list.append(log_det)
        return torch.cat([*early, x], dim=1), log_s_list, log_det_list

    @torch.no_grad()
    def infer(
        self,
        mel: Tensor,
        sigma: float | Tensor = 1.0,
        noise: list[Tensor] | None = None,
        inside: Tensor | None = None,
    ) -> Tensor:
        """Turn noise into audio.

        mel [B, n_mel, T] -> audio [B, T * hop_length]. ``noise`` holds unit-variance tensors, one
        of each of ``noise_shapes``; by default they are drawn here. ``sigma`` scales them, as a tensor
        [B, 1, 1] those of each clip. ``inside`` [1, 1, L]: 1 for the groups of the clips, 0 for those behind their
        end, where mel is 0; the audio before it is that of the clips alone.
        """
        remaining, *early = self.draw_noise(mel) if noise is None else noise
        frames = mel.shape[2]
        condition = self._conditioning(mel, self.groups(frames), plainly=False)
        x = sigma * remaining
        for k in reversed(range(len(self.WN))):
            x_a, x_b = (x if inside is None else x * inside).chunk(2, dim=1)
            log_s, b = self.WN[k](x_a, condition, inside)
            x = torch.cat([x_a, (x_b - b) / torch.exp(log_s)], dim=1)
            x = self.convinv[k].inverse(x)
            if self._exits_before(k):
                x = torch.cat([sigma * early.pop(0), x], dim=1)
        audio = x.transpose(1, 2).reshape(x.shape[0], -1)
        return audio if self.groups_per_frame else audio[:, : frames * self.hop_length]

    def groups(self, frames: int) -> int:
        """Groups of samples that cover so many frames."""
        if self.groups_per_frame:
            return frames * self.groups_per_frame
        return -(-frames * self.hop_length // self.n_group)

    @property
    def whole_frames(self) -> int:
        """The fewest frames that are a whole number of groups: 1 if one frame is."""
        return self.n_group // math.gcd(self.hop_length, self.n_group)

    def noise_shapes(self, batch: int, frames: int) -> list[tuple[int, int, int]]:
        """Shapes [B, C, L] of the noise of ``infer``, in the order it is used: the last exit first."""
        groups = self.groups(frames)
        early = [self.n_early_size] * sum(self._exits_before(k) for k in range(len(self.WN)))
        return [(batch, channels, groups) for channels in (self.n_remaining_channels, *early)]

    def draw_noise(self, mel: Tensor) -> list[Tensor]:
        """The noise of ``infer`` for mel [B, n_mel, T], where it is, by torch's default generator."""
        batch, _, frames = mel.shape
        return [torch.randn(s, dtype=mel.dtype, device=mel.device) for s in self.noise_shapes(batch, frames)]

    @property
    def context_frames(self) -> int:
        """Mel frames to either side of a place that the audio there depends on."""
        reach = sum(layer.padding for layer in self.WN[0].in_layers) * len(self.WN)
        # It looks back alone. Ahead it has room for the group across the last frame's end, which is another one in a
        # longer spectrogram.
        upsampling = math.ceil(self.upsample.kernel_size[0] / self.hop_length)
        return math.ceil(reach * self.n_group / self.hop_length) + upsampling

    def _conditioning(self, mel: Tensor, groups: int, plainly: bool) -> GroupRate | FrameRate:
        """mel [B, n_mel, T] as the couplings take it, for so many groups: ``plainly``, or the way with fewer
        multiplications."""
        batch, _, frames = mel.shape
        covered = (frames - 1) * self.hop_length + self.upsample.kernel_size[0]
        if covered < groups * self.n_group:
            raise ValueError(f"the mel spectrogram covers {covered // self.n_group} groups of samples, not {groups}")
        at_frame_rate, on_lines = self.is_composed if self.groups_per_frame else False, self.on_lines
        if at_frame_rate is None:
            # Trained, it could become any.
            on_lines = not self.upsample.weight.requires_grad and self.upsample.interpolates()
            at_frame_rate = not plainly and self._pays_to_compose(batch * groups, on_lines)
        if at_frame_rate:
            return conditioning.at_frame_rate(
                mel, self.upsample, groups, self.n_group, on_lines, bool(self.is_composed)
            )
        return conditioning.at_group_rate(mel, self.upsample, groups, self.n_group)

    def _pays_to_compose(self, groups: int, on_lines: bool) -> bool:
        """Whether so many groups, all clips together, take fewer multiplications at frame rate (``conditioning``);
        ``on_lines``: whether the upsampling interpolates."""
        reach = self.upsample.reach if self.upsample.composable else 0
        composing = reach * (2 * self.n_group if on_lines else self.hop_length * self.upsample.in_channels)
        products = groups * reach * (2 * self.n_group / self.hop_length if on_lines else 1)
        return reach > 0 and composing + products < groups * self.n_group

    @torch.no_grad()
    def fuse(self) -> None:
        """Merge weight norm and other neighbours that are linear into plain weights, and keep the inverses of the 1x1
        kernels, for inference.

        The upsampling is merged, too, unless the merged weights would take much more memory.
        """
        if self.is_composed is not None:
            return
        for convinv, wn in zip(self.convinv, self.WN):
            convinv.fuse()
            wn.fuse()
        upsample, n_group = self.upsample, self.n_group
        self.on_lines = upsample.interpolates()
        columns = 2 if self.on_lines else self.hop_length // n_group
        pays = upsample.composable and 0 < columns * upsample.reach <= 2 * n_group
        self.is_composed = pays and self.groups_per_frame is not None
        if not self.is_composed:
            return
        compose = conditioning.composed_with(upsample, n_group, self.on_lines)
        for wn in self.WN:
            wn.cond_layer.replace_kernel(*compose(wn.cond_layer, wn.n_layers))
