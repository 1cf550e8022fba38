"""The mel spectrogram as WaveGlow's couplings see it, at one of two rates with the same numbers.

The plain way upsamples the mel spectrogram to the rate of the groups and multiplies it with each ``cond_layer`` there,
n_mel * n_group channels wide. Nothing nonlinear lies between the two. So the conditions of all groups of a frame are
also one product of the r frames that the upsampling reaches over with a composed kernel. That takes n_group / r times
fewer multiplications. Composing a kernel takes as many as n_mel * hop_length * r samples do the plain way; with an
upsampling that is fixed and keeps the mel bands apart, as many as hop_length * r samples do.

Shapes: B clips, T mel frames, G = n_group, P groups in a frame, L groups in all, r frames that the upsampling reaches
over, C channels of a ``WN``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common.layers.conv import Conv1d, Upsampling
from common.layers.matmul import dtype_of_products


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
    upsampling: tuple[Tensor, Tensor] | None
    "What ``upsampling_matrix`` gives; None if the kernel of each ``cond_layer`` is that of ``kernel_at_frame_rate``."

    def conditions(self, layer: Conv1d, parts: int) -> Iterator[Tensor]:
        """What the ``cond_layer`` makes of it, in parts [B, 2C, L]."""
        if self.upsampling is None:
            at_frames = layer.forward_in_parts(self.frames, parts)
        else:
            weight, bias = kernel_at_frame_rate(layer, parts, self.groups_per_frame, *self.upsampling)
            at_frames = (layer.convolve(self.frames, *part) for part in zip(weight.chunk(parts), bias.chunk(parts)))
        for y in at_frames:
            # [B, P * 2C, T] -> [B, 2C, T * P]
            y = y.unflatten(1, (self.groups_per_frame, -1)).permute(0, 2, 3, 1).flatten(2)
            yield y[:, :, : self.groups]


def at_group_rate(mel: Tensor, upsample: Upsampling, groups: int, n_group: int) -> GroupRate:
    """mel [B, n_mel, T] upsampled to so many groups."""
    mel = upsample(mel)[:, :, : groups * n_group]
    batch, channels, _ = mel.shape
    mel = mel.reshape(batch, channels, groups, n_group)
    return GroupRate(mel.transpose(1, 2).reshape(batch, groups, channels * n_group).transpose(1, 2))


def at_frame_rate(mel: Tensor, upsample: Upsampling, groups: int, n_group: int, is_composed: bool) -> FrameRate:
    """mel [B, n_mel, T] for so many groups; ``is_composed``: whether each ``cond_layer`` has its composed kernel."""
    groups_per_frame = upsample.stride[0] // n_group
    frames, reach = -(-groups // groups_per_frame), upsample.reach
    padded = F.pad(mel, (reach - 1, 0))
    seen = torch.cat([padded[:, :, start : start + frames] for start in reversed(range(reach))], dim=1)
    upsampling = None if is_composed else upsampling_matrix(upsample, n_group)
    return FrameRate(seen, groups, groups_per_frame, upsampling)


def upsampling_matrix(upsample: Upsampling, n_group: int) -> tuple[Tensor, Tensor]:
    """The upsampling as a matrix over the r frames of ``FrameRate``.

    Returns a matrix [n_mel * G, P * r * n_mel] in the precision of products, and a bias [n_mel * G] in float32. For a
    diagonal upsampling the matrix is [n_mel, G, P * r], a small one for each mel band.
    """
    # To the precision of products first: after the reordering it would be twice the bytes.
    weight = upsample.weight.to(dtype_of_products(upsample.weight))
    bias = upsample.bias.float().repeat_interleave(n_group)
    if upsample.is_diagonal():
        taps = weight.diagonal().t().unflatten(1, (-1, upsample.stride[0] // n_group, n_group))  # [n_mel, r, P, G]
        return taps.permute(0, 3, 2, 1).flatten(2), bias
    weight = weight.unflatten(2, (-1, upsample.stride[0] // n_group, n_group))  # [in, out, r, P, G]
    return weight.permute(1, 4, 3, 2, 0).flatten(2).flatten(0, 1), bias


def interpolation(mean: Tensor, std: Tensor, kernel_size: int, hop_length: int) -> tuple[Tensor, Tensor]:
    """Weights of an upsampling to the standardized mel spectrogram, as far back as the kernel can look.

    mean, std [n_mel] -> weight [n_mel, n_mel, kernel_size], bias [n_mel]. From frame to frame the values lie on a
    line; with a kernel of less than two hops they are steps.
    """
    place = torch.arange(kernel_size)
    line = (1 - (place - hop_length).abs() / hop_length).clamp_min(0)
    taps = line if kernel_size >= 2 * hop_length else (place < hop_length).float()
    return torch.diag(1 / std)[..., None] * taps, -mean / std


def kernel_at_frame_rate(
    layer: Conv1d, parts: int, groups_per_frame: int, matrix: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The kernel of a ``cond_layer`` behind the upsampling of ``upsampling_matrix``.

    Returns weight [parts * P * 2C, r * n_mel, 1] and bias [parts * P * 2C]: part by part, in each the groups of a
    frame one after the other.
    """
    weight, own_bias = layer.kernel()
    weight = weight[..., 0]
    with torch.autocast(weight.device.type, enabled=False):
        bias = own_bias + (weight.float() @ bias).to(own_bias.dtype)
        weight = weight.to(matrix.dtype)
        if matrix.ndim == 2:
            weight = weight @ matrix
        else:  # band by band: [n_mel, out, G] @ [n_mel, G, P * r]
            bands = weight.unflatten(1, matrix.shape[:2]).transpose(0, 1) @ matrix
            weight = bands.unflatten(2, (groups_per_frame, -1)).permute(1, 2, 3, 0).flatten(1)
    weight = weight.unflatten(1, (groups_per_frame, -1)).unflatten(0, (parts, -1))  # [parts, 2C, P, r * n_mel]
    bias = bias.unflatten(0, (parts, 1, -1)).expand(-1, groups_per_frame, -1)
    return weight.transpose(1, 2).flatten(0, 2)[..., None], bias.flatten()
