"""Location-sensitive attention (Chorowski et al. 2015, arXiv:1506.07503), as Tacotron 2 uses it.

Energies and softmax are float32 in any precision of the model: a sum of attention over hundreds of
frames has no room in half precision, nor has the difference of two energies.
Shapes: B clips, N text symbols, E encoder channels, A attention channels.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.layers.conv import Conv1d
from tacotron2.attention_recurrence import MASKED, attend_over_time

Gain: TypeAlias = Literal["linear", "relu", "sigmoid", "tanh"]
"The nonlinearity that follows a layer; the initialization is scaled for it."


class Linear(nn.Module):
    """A linear layer with Glorot's initialization, its parameters under NVIDIA's ``linear_layer``."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gain: Gain = "linear"):
        super().__init__()
        self.linear_layer = nn.Linear(in_features, out_features, bias=bias)
        nn.init.xavier_uniform_(self.linear_layer.weight, gain=nn.init.calculate_gain(gain))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return self.linear_layer(x)


class ConvNorm(nn.Module):
    """A convolution that keeps the length, its parameters under NVIDIA's ``conv``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True, gain: Gain = "linear"):
        super().__init__()
        self.conv = Conv1d(in_channels, out_channels, kernel_size, bias=bias)
        nn.init.xavier_uniform_(self.conv.weight, gain=nn.init.calculate_gain(gain))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, T] -> [B, out, T]."""
        return self.conv(x)


class LocationLayer(nn.Module):
    """Location features: a convolution over earlier attention weights, then a projection."""

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
        conv = self.location_conv.conv
        if torch.onnx.is_in_onnx_export():
            return conv.convolve(weights, kernel)
        # The clips as the rows of an image: oneDNN convolves a single clip in another way than several, and in bfloat16
        # a last bit that differs is heard some frames later. So a clip is spoken as if it was alone.
        rows = F.conv2d(weights.transpose(0, 1)[None], kernel[:, :, None], padding=(0, conv.padding))
        return rows[0].transpose(0, 1).contiguous()


@dataclass
class Memory:
    """Values that the attention needs at every frame of a batch, computed once."""

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
        return Memory(self.keys(values).transpose(1, 2).contiguous(), padding[:, None], self.kernel())

    def forward(self, query: Tensor, earlier: Tensor, memory: Memory) -> Tensor:
        """Attend once, in inference: query [B, A] of ``query_layer``, earlier [B, 2, N] (the weights before and
        their sum) -> weights [B, N]."""
        with torch.autocast(query.device.type, enabled=False):
            location = self.location_layer(earlier, memory.kernel)
            hidden = torch.sigmoid(location + memory.keys + 2 * query.float()[:, :, None])
            energies = torch.bmm(self.score().expand(hidden.shape[0], 1, -1), hidden)
            return torch.softmax(energies.masked_fill(memory.padding, MASKED), dim=2)[:, 0]

    def over_time(
        self, known: Tensor, feedback: Tensor, values: Tensor, padding: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend at each of T frames of teacher forcing, see ``attend_over_time``, whose other inputs are made here.

        known [T, B, 4H], feedback [4H, H + E], values [B, N, E], padding [B, N], masks [T, B, H] -> hidden state and
        context [T, B, H + E], attention weights [T, B, N].
        """
        query = 2 * self.query_layer.linear_layer.weight
        keys, kernel, v = self.keys(values), self.kernel(), self.score()[0]
        return attend_over_time(known, feedback, query, keys, kernel, v, values, padding, masks)

    def keys(self, values: Tensor) -> Tensor:
        """values [B, N, E] -> [B, N, A] float32."""
        return 2 * self.memory_layer(values).float()

    def kernel(self) -> Tensor:
        """Kernel of the location layer, [A, 2, k] float32."""
        with torch.autocast(self.v.linear_layer.weight.device.type, enabled=False):
            return 2 * self.location_layer.kernel()

    def score(self) -> Tensor:
        """v, [1, A] float32."""
        return 2 * self.v.linear_layer.weight.float()
