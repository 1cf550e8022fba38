"""The mel spectrogram as WaveGlow's couplings see it, at one of two rates with the same numbers.

The plain way upsamples the mel spectrogram to the rate of the groups and multiplies it with each ``cond_layer`` there,
n_mel * n_group channels wide. Nothing nonlinear lies between the two. So the conditions of all groups of a frame are
also one product of the r frames that the upsampling reaches over with a composed kernel. That takes n_group / r times
fewer multiplications. Composing a kernel takes as many as n_mel * hop_length * r samples do the plain way.

Where the upsampling is fixed and interpolates, the groups of a frame lie on a line: its first group and the rise over
the frame tell all of them. So two products make a frame, of kernels that are composed of a few sums.

Shapes: B clips, T mel frames, G = n_group, P groups in a frame, L groups in all, r frames that the upsampling reaches
over, C channels of a ``WN``, K products that make a frame: 2 or P.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from common.layers.conv import Conv1d, Kernel, Upsampling
from common.layers.matmul import dtype_of_products

Composer: TypeAlias = Callable[[Conv1d, int], Kernel]
"(``cond_layer``, parts) -> its kernel at frame rate, part by part."


class GroupRate(NamedTuple):
    """The upsampled mel spectrogram."""

    mel: Tensor
    "[B, n_mel * G, L]"

    def conditions(self, layer: Conv1d, parts: int) -> Iterator[Tensor]:
        """What the ``cond_layer`` makes of it, in parts [B, 2C, L]."""
        return layer.forward_in_parts(self.mel, parts)


class FrameRate(NamedTuple):
    """The mel spectrogram, with each frame the r - 1 frames before it."""

    frames: Tensor
    "[B, r * n_mel, T]"
    groups: int
    "L"
    groups_per_frame: int
    "P"
    place: Tensor | None
    "[P, 1], how far into the frame each group is, if the groups of a frame lie on a line."
    compose: Composer | None
    "Makes the composed kernel of a ``cond_layer``; None if it has it already."

    def conditions(self, layer: Conv1d, parts: int) -> Iterator[Tensor]:
        """What the ``cond_layer`` makes of it, in parts [B, 2C, L]."""
        if self.compose is None:
            at_frames = layer.forward_in_parts(self.frames, parts)
        else:
            kernels = zip(*(each.chunk(parts) for each in self.compose(layer, parts)))
            at_frames = (layer.convolve(self.frames, *kernel) for kernel in kernels)
        for y in at_frames:
            # [B, K * 2C, T] -> [B, T, K, 2C] -> [B, 2C, T * P]
            y = y.transpose(1, 2).unflatten(2, (self.groups_per_frame if self.place is None else 2, -1))
            if self.place is not None:
                y = torch.addcmul(y[:, :, :1], y[:, :, 1:], self.place)
            yield y.flatten(1, 2).transpose(1, 2)[:, :, : self.groups]


def at_group_rate(mel: Tensor, upsample: Upsampling, groups: int, n_group: int) -> GroupRate:
    """mel [B, n_mel, T] upsampled to so many groups."""
    mel = upsample(mel)[:, :, : groups * n_group]
    batch, channels, _ = mel.shape
    mel = mel.reshape(batch, channels, groups, n_group)
    return GroupRate(mel.transpose(1, 2).reshape(batch, groups, channels * n_group).transpose(1, 2))


def at_frame_rate(
    mel: Tensor, upsample: Upsampling, groups: int, n_group: int, on_lines: bool, is_composed: bool
) -> FrameRate:
    """mel [B, n_mel, T] for so many groups; ``on_lines``: whether the upsampling interpolates; ``is_composed``:
    whether each ``cond_layer`` has its composed kernel."""
    groups_per_frame = upsample.stride[0] // n_group
    frames, reach = -(-groups // groups_per_frame), upsample.reach
    padded = F.pad(mel, (reach - 1, 0))
    seen = torch.cat([padded[:, :, start : start + frames] for start in reversed(range(reach))], dim=1)
    place = None
    if on_lines:
        place = (torch.arange(groups_per_frame, device=mel.device) / groups_per_frame)[:, None]
        place = place.to(dtype_of_products(mel))
    compose = None if is_composed else composed_with(upsample, n_group, on_lines)
    return FrameRate(seen, groups, groups_per_frame, place, compose)


def composed_with(upsample: Upsampling, n_group: int, on_lines: bool) -> Composer:
    """A function that composes a ``cond_layer`` with the upsampling; ``on_lines``: whether that interpolates."""
    if on_lines:
        taps = upsample.weight.diagonal().float().unflatten(0, (-1, upsample.stride[0]))  # [r, P * G, n_mel]
        rise = (taps[:, -1] - taps[:, 0]) * (taps.shape[1] / (taps.shape[1] - 1))
        share = torch.arange(n_group, device=taps.device) / taps.shape[1]
        return partial(_kernel_on_lines, first=taps[:, 0], rise=rise, share=share, upsampling_bias=upsample.bias)
    # To the precision of products first: after the reordering it would be twice the bytes.
    weight = upsample.weight.to(dtype_of_products(upsample.weight))
    weight = weight.unflatten(2, (-1, upsample.stride[0] // n_group, n_group))  # [in, out, r, P, G]
    matrix = weight.permute(1, 4, 3, 2, 0).flatten(2).flatten(0, 1)  # [n_mel * G, P * r * n_mel]
    columns = upsample.stride[0] // n_group
    return partial(_kernel_by_group, columns=columns, matrix=matrix, upsampling_bias=upsample.bias)


def _kernel_by_group(layer: Conv1d, parts: int, columns: int, matrix: Tensor, upsampling_bias: Tensor) -> Kernel:
    """weight [parts * P * 2C, r * n_mel, 1] and bias [parts * P * 2C]: in each part the groups one after the other."""
    weight, bias = layer.kernel()
    weight = weight.squeeze(2)
    with torch.autocast(weight.device.type, enabled=False):
        by_band = weight.float().unflatten(1, (len(upsampling_bias), -1)).sum(2)
        bias = bias + (by_band @ upsampling_bias.float()).to(bias.dtype)
        weight = weight.to(matrix.dtype) @ matrix
    weight = weight.unflatten(1, (columns, -1)).unflatten(0, (parts, -1))  # [parts, 2C, P, r * n_mel]
    bias = bias.unflatten(0, (parts, 1, -1)).expand(-1, columns, -1)
    return weight.transpose(1, 2).flatten(0, 2)[..., None], bias.flatten()


def _kernel_on_lines(
    layer: Conv1d, parts: int, first: Tensor, rise: Tensor, share: Tensor, upsampling_bias: Tensor
) -> Kernel:
    """weight [parts * 2 * 2C, r * n_mel, 1] and bias [parts * 2 * 2C]: in each part the first group of a frame, then
    the rise over the frame.

    first, rise [r, n_mel]: the upsampling's tap at the beginning of a frame, and how far it rises over the frame;
    share [G]: how far a sample of the first group is into the frame.
    """
    weight, bias = layer.kernel()
    with torch.autocast(weight.device.type, enabled=False):
        by_band = weight.float().unflatten(1, (len(upsampling_bias), -1)).squeeze(3)  # [parts * 2C, n_mel, G]
        whole, risen = (by_band @ torch.stack([torch.ones_like(share), share], dim=1)).unbind(2)
        bias = bias + (whole @ upsampling_bias.float()).to(bias.dtype)
        whole, risen = whole[:, None], risen[:, None]
        kernels = torch.stack([whole * first + risen * rise, whole * rise], dim=1)  # [parts * 2C, 2, r, n_mel]
        kernels = kernels.to(weight.dtype).flatten(2).unflatten(0, (parts, -1)).transpose(1, 2)
    # The rise needs no bias.
    return kernels.flatten(0, 2)[..., None], F.pad(bias.unflatten(0, (parts, 1, -1)), (0, 0, 0, 1)).flatten()


def interpolation(mean: Tensor, std: Tensor, kernel_size: int, hop_length: int) -> tuple[Tensor, Tensor]:
    """Weights of an upsampling to the standardized mel spectrogram, as far back as the kernel can look.

    mean, std [n_mel] -> weight [n_mel, n_mel, kernel_size], bias [n_mel]. From frame to frame the values lie on a
    line; with a kernel of less than two hops they are steps.
    """
    place = torch.arange(kernel_size)
    line = (1 - (place - hop_length).abs() / hop_length).clamp_min(0)
    taps = line if kernel_size >= 2 * hop_length else (place < hop_length).float()
    return torch.diag(1 / std)[..., None] * taps, -mean / std
