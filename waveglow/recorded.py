"""WaveGlow's inference on a CUDA card, which is recorded: the kernels of short speech are faster than their launch.

A graph is for one length. So spectrograms are filled up to one of a few lengths, behind which the model sees what it
sees behind the end of a clip, and the audio is that of the clip alone.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from common.cuda_graph import recorded_by_shape
from common.device import Device
from waveglow.model import WaveGlow

FRAMES = 32
"The lengths are multiples of so many frames."

Infer: TypeAlias = Callable[[Tensor, float, list[Tensor]], Tensor]
"As ``WaveGlow.infer``: mel, sigma, noise -> audio."


def recorded_inference(model: WaveGlow, device: Device) -> Infer:
    """``infer`` of a fused model for one device; on a CUDA card it replays graphs, in the precision in which it is
    first called for a length."""
    if device.type != "cuda":
        return model.infer

    def work(mel: Tensor, sigma: Tensor, inside: Tensor, *noise: Tensor) -> Tensor:
        return model.infer(mel, sigma, list(noise), inside)

    replayed = recorded_by_shape(work, device)

    def infer(mel: Tensor, sigma: float, noise: list[Tensor]) -> Tensor:
        frames = mel.shape[2]
        room = -frames % FRAMES
        groups = model.groups(frames)
        rest = model.groups(frames + room) - groups
        inside = F.pad(mel.new_ones(1, 1, groups), (0, rest))
        filled = (F.pad(each, (0, rest)) for each in noise)
        audio = replayed(F.pad(mel, (0, room)), torch.full((), sigma, device=mel.device), inside, *filled)
        return audio[:, : frames * model.hop_length]

    return infer
