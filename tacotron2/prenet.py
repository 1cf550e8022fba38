"""The prenet of Tacotron 2's decoder, and its dropout masks in inference."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.layers.dropout import dropout
from common.layers.module_list import ModuleList
from tacotron2.attention import Linear

MASKS_AT_A_TIME = 64
"Steps of inference whose dropout masks are drawn at once."


class Prenet(nn.Module):
    """A bottleneck for the step before; its dropout stays on in inference, where it gives variety."""

    def __init__(self, n_channels: int, prenet_dim: int, p_dropout: float):
        super().__init__()
        self.p_dropout = p_dropout
        sizes = [n_channels, prenet_dim, prenet_dim]
        self.layers = ModuleList(Linear(n_in, n_out, bias=False) for n_in, n_out in pairwise(sizes))

    def forward(
        self,
        frames: Tensor,
        masks: Tensor | None = None,
        layers: Iterable[Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor:
        """frames [..., r * n_mel] -> [..., prenet_dim]; masks [2, ..., prenet_dim] of ``draw_masks`` or drawn here.

        ``layers`` computes what the prenet's own layers do.
        """
        own: Iterable[Callable[[Tensor], Tensor]] = self.layers
        for i, layer in enumerate(own if layers is None else layers):
            frames = F.relu(layer(frames))
            frames = dropout(frames, self.p_dropout) if masks is None else frames * masks[i]
        return frames

    def draw_masks(self, seeds: list[int], like: Tensor) -> Iterator[Tensor]:
        """The masks [2, B, prenet_dim] of one step after the other; those of a clip depend on its seed alone.

        Drawn on the CPU, so that every device gets the same.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (MASKS_AT_A_TIME, len(self.layers), self.layers[-1].linear_layer.out_features)
        while True:
            uniform = torch.stack([torch.rand(shape, generator=generator) for generator in generators], dim=2)
            yield from ((uniform >= self.p_dropout) / (1 - self.p_dropout)).to(like)
