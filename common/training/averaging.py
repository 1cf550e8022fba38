"""A moving average of the weights, which gives better speech than the weights of the last step (Polyak, Juditsky
1992)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.adam import has_foreach
from common.precision import Precision


class WeightAverage:
    """The exponential moving average of a model's parameters and of batch norm's statistics, in float32.

    At first it averages over fewer steps, so that the random weights of the start are soon forgotten.
    """

    def __init__(self, decay: float, model: nn.Module, precision: Precision):
        self.decay = decay
        self.model = model
        self.precision = precision
        self.restart()

    def restart(self) -> None:
        """Start from the current weights."""
        self.weights = {name: tensor.clone() for name, tensor in self.precision.model_state(self.model).items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after this step; steps count from 1."""
        share = 1 - min(self.decay, step / (step + 10))
        state = self.precision.model_state(self.model)
        averaged = [name for name, tensor in state.items() if tensor.is_floating_point()]
        ours, theirs = ([weights[name] for name in averaged] for weights in (self.weights, state))
        if has_foreach(self.precision.device):  # all at once
            torch._foreach_lerp_(ours, theirs, share)
        else:
            for our, their in zip(ours, theirs):
                our.lerp_(their, share)
        for name in state.keys() - set(averaged):
            self.weights[name].copy_(state[name])

    def load(self, weights: dict[str, Tensor]) -> None:
        """Continue from the average in a checkpoint: names to tensors of the parameters' shapes."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the model has these weights; afterwards it has its own again."""
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
