"""Location-sensitive attention (Chorowski et al. 2015, arXiv:1506.07503), as Tacotron 2 uses it.

Energies and softmax are float32 in any precision of the model: a sum of attention over hundreds of
frames has no room in half precision, nor has the difference of two energies.
Shapes: B clips, N text symbols, E encoder channels, A attention channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.layers import Conv1d

MASKED = torch.finfo(torch.float32).min
"Energy of padding. Not -inf, of which an all-masked row would make nan."


class Linear(nn.Module):
    """A linear layer in Glorot's initialization, its parameters under NVIDIA's ``linear_layer``."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gain: str = "linear"):
        super().__init__()
        self.linear_layer = nn.Linear(in_features, out_features, bias=bias)
        nn.init.xavier_uniform_(self.linear_layer.weight, gain=nn.init.calculate_gain(gain))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return self.linear_layer(x)


class ConvNorm(nn.Module):
    """A convolution that keeps the length, its parameters under NVIDIA's ``conv``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True, gain: str = "linear"):
        super().__init__()
        self.conv = Conv1d(in_channels, out_channels, kernel_size, bias=bias)
        nn.init.xavier_uniform_(self.conv.weight, gain=nn.init.calculate_gain(gain))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, T] -> [B, out, T]."""
        return self.conv(x)


class LocationLayer(nn.Module):
    """What the attention knows of where it was: a convolution over earlier weights, then a projection."""

    def __init__(self, n_filters: int, kernel_size: int, attention_dim: int):
        super().__init__()
        self.location_conv = ConvNorm(2, n_filters, kernel_size, bias=False)
        self.location_dense = Linear(n_filters, attention_dim, bias=False, gain="tanh")

    def kernel(self) -> Tensor:
        """Both layers as one convolution kernel [A, 2, k]: nothing nonlinear lies between them."""
        dense, conv = self.location_dense.linear_layer.weight, self.location_conv.conv.weight
        return (dense.float() @ conv.float().flatten(1)).view(-1, *conv.shape[1:])

    def forward(self, weights: Tensor, kernel: Tensor) -> Tensor:
        """Weights of the frame before and sum of all before, [B, 2, N] -> [B, A, N]."""
        return self.location_conv.conv.convolve(weights, kernel)


@dataclass
class Memory:
    """What the attention to one batch needs at every frame, computed once."""

    keys: Tensor
    "[B, A, N] float32, twice the projections of what is attended to (see ``Attention``)."
    padding: Tensor
    "[B, 1, N] bool, True behind the end of a text."
    kernel: Tensor
    "[A, 2, k] float32, twice that of the location layer."


class Attention(nn.Module):
    """Scores each symbol by the decoder's state, by its content and by where the attention was.

    The score v tanh(x) is computed as 2 v sigmoid(2 x): their difference is the sum of v, a constant
    that softmax does not see, and CPUs take a fifth of the time for it.
    """

    def __init__(
        self, attention_rnn_dim: int, embedding_dim: int, attention_dim: int, n_filters: int, kernel_size: int
    ):
        super().__init__()
        self.query_layer = Linear(attention_rnn_dim, attention_dim, bias=False, gain="tanh")
        self.memory_layer = Linear(embedding_dim, attention_dim, bias=False, gain="tanh")
        self.v = Linear(attention_dim, 1, bias=False)
        self.location_layer = LocationLayer(n_filters, kernel_size, attention_dim)

    def prepare(self, values: Tensor, padding: Tensor) -> Memory:
        """values [B, N, E] that are attended to, padding [B, N] bool, True behind the end of a text."""
        keys = 2 * self.memory_layer(values).float().transpose(1, 2)
        if not self.location_layer.location_conv.conv.channels_last:
            keys = keys.contiguous()  # in memory as the location layer's outputs, to which they are added
        with torch.autocast(values.device.type, enabled=False):
            kernel = 2 * self.location_layer.kernel()
        return Memory(keys, padding[:, None], kernel)

    def forward(self, query: Tensor, earlier: Tensor, memory: Memory) -> Tensor:
        """Attend once: query [B, A] of ``query_layer``, earlier [B, 2, N] (the weights before and their sum)
        -> weights [B, N]."""
        with torch.autocast(query.device.type, enabled=False):
            location = self.location_layer(earlier, memory.kernel)
            v = 2 * self.v.linear_layer.weight.float().expand(query.shape[0], 1, -1)
            energies = scores(location, memory.keys, 2 * query.float(), v)
            return torch.softmax(energies.masked_fill(memory.padding, MASKED), dim=2)[:, 0]


def scores(location: Tensor, keys: Tensor, query: Tensor, v: Tensor) -> Tensor:
    """v sigmoid(location + keys + query): location, keys [B, A, N], query [B, A], v [B, 1, A] -> [B, 1, N]."""
    if torch.is_grad_enabled():
        return _Scores.apply(location, keys, query, v)
    return torch.bmm(v, torch.sigmoid(location + keys + query[:, :, None]))


class _Scores(torch.autograd.Function):
    """The same, with fewer operators and tensors than autograd takes for it."""

    @staticmethod
    def forward(ctx, location: Tensor, keys: Tensor, query: Tensor, v: Tensor) -> Tensor:
        hidden = (location + keys).add_(query[:, :, None]).sigmoid_()
        ctx.save_for_backward(hidden, v)
        return torch.bmm(v, hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden, v = ctx.saved_tensors
        of_v = torch.bmm(gradient, hidden.transpose(1, 2))
        of_sum = (hidden * gradient).mul_(v.transpose(1, 2))
        of_sum.addcmul_(of_sum, hidden, value=-1)
        return of_sum, of_sum, of_sum.sum(2), of_v
