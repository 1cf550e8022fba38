"""The decoder of Tacotron 2: from encoded text to mel frames, step after step.

A step makes r frames at once from the r before them (Wang et al. 2017, arXiv:1703.10135, section 3.3); r is 1 in
Tacotron 2. With teacher forcing every frame before the present step is known, and the decoder LSTM never feeds
the attention. So only the attention LSTM with its attention, and the decoder LSTM's own feedback,
go step by step, each as one node of autograd; everything else is one matrix product over all
steps. Inference goes one step at a time (``tacotron2/decoding.py``), the products of an LSTM merged into one.
Shapes: B clips, S steps, r frames a step, T frames, N text symbols, E encoder channels, H channels of an LSTM.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from common.layers.dropout import dropout
from common.layers.matmul import linear
from tacotron2.attention import Attention, Linear, Memory
from tacotron2.lstm import lstm, lstm_over_time
from tacotron2.prenet import Prenet

MEAN_LOG_MEL = -5.25
"""About the mean of speech, and exact in half precision. Frames begin at this value and not at 0: Adam would need
thousands of steps to get there, and in short trainings the hidden states would have to carry it."""

Frames = TypeVar("Frames", int, Tensor)


def steps_of(frames: Frames, n_frames_per_step: int) -> Frames:
    """How many steps so many frames take; the last step may be filled in part."""
    return (frames + n_frames_per_step - 1) // n_frames_per_step


class AttentionState(NamedTuple):
    """State of the attention LSTM and the attention, carried from step to step."""

    hidden: Tensor
    "[B, H]"
    cell: Tensor
    "[B, H] float32"
    context: Tensor
    "[B, E], the memory weighted by the attention."
    weights: Tensor
    "[B, 2, N] float32: the attention weights, and their sum over all steps so far."


class DecoderState(NamedTuple):
    """State of the decoder LSTM, carried from step to step."""

    hidden: Tensor
    "[B, H]"
    cell: Tensor
    "[B, H] float32"


class Decoded(NamedTuple):
    """Output of the decoder for a batch."""

    mel: Tensor
    "[B, n_mel, T] float32"
    gate: Tensor
    "[B, S] float32, the logit of being the step with the last frame."
    alignments: Tensor
    "[B, S, N] float32"


class Affine(NamedTuple):
    """A linear layer made from a model's parameters."""

    weight: Tensor
    "[out, in]"
    bias: Tensor | None
    "[out]"


class FrameByFrame(NamedTuple):
    """The linear layers of a decoder that gets its frames step by step."""

    prenet_1: Affine
    prenet_2: Affine
    attention: Affine
    "From prenet output, context and hidden state to the gates of the attention LSTM."
    query: Affine
    "From the attention's hidden state to its query."
    decoder: Affine
    "From the attention's hidden state, context and the hidden state to the gates of the decoder LSTM."
    output: Affine
    "See ``Decoder.output_layer``."


class Decoder(nn.Module):
    """Prenet, attention LSTM, attention, decoder LSTM, projections to the frames of a step and to the gate.

    Arguments are those of ``Tacotron2``.
    """

    def __init__(
        self,
        n_mel_channels: int,
        encoder_embedding_dim: int,
        n_frames_per_step: int,
        prenet_dim: int,
        attention_rnn_dim: int,
        decoder_rnn_dim: int,
        attention_dim: int,
        attention_location_n_filters: int,
        attention_location_kernel_size: int,
        p_prenet_dropout: float,
        p_attention_dropout: float,
        p_decoder_dropout: float,
        max_decoder_steps: int,
        gate_threshold: float,
        p_frame_dropout: float = 0.0,
    ):
        super().__init__()
        self.n_mel_channels = n_mel_channels
        self.n_frames_per_step = n_frames_per_step
        self.prenet_dim = prenet_dim
        self.p_attention_dropout = p_attention_dropout
        self.p_decoder_dropout = p_decoder_dropout
        self.p_frame_dropout = p_frame_dropout
        self.max_decoder_steps = max_decoder_steps
        self.gate_threshold = gate_threshold
        self.prenet = Prenet(n_mel_channels * n_frames_per_step, prenet_dim, p_prenet_dropout)
        # The cells hold the parameters under NVIDIA's names; they run as matrix products and ``lstm``.
        self.attention_rnn = nn.LSTMCell(prenet_dim + encoder_embedding_dim, attention_rnn_dim)
        self.attention_layer = Attention(
            attention_rnn_dim,
            encoder_embedding_dim,
            attention_dim,
            attention_location_n_filters,
            attention_location_kernel_size,
        )
        self.decoder_rnn = nn.LSTMCell(attention_rnn_dim + encoder_embedding_dim, decoder_rnn_dim)
        self.linear_projection = Linear(decoder_rnn_dim + encoder_embedding_dim, n_mel_channels * n_frames_per_step)
        nn.init.constant_(self.linear_projection.linear_layer.bias, MEAN_LOG_MEL)
        self.gate_layer = Linear(decoder_rnn_dim + encoder_embedding_dim, 1, gain="sigmoid")

    def forward(self, values: Tensor, padding: Tensor, mel: Tensor, seeds: list[int] | None = None) -> Decoded:
        """Teacher forcing: the encoder's values [B, N, E], padding [B, N], mel [B, n_mel, T] to predict.

        A clip's prenet dropout follows from its seed, as in ``infer``; without seeds it is drawn from torch's
        default generator.
        """
        (batch, n_mel, length), r = mel.shape, self.n_frames_per_step
        steps = steps_of(length, r)
        # The last step may be short of frames, but no step follows that would be given them.
        before = torch.cat([mel.new_zeros(batch, n_mel, r), mel[:, :, : (steps - 1) * r]], dim=2)
        frames = before.transpose(1, 2).reshape(batch, steps, -1).transpose(0, 1).to(values.dtype)
        if self.training and self.p_frame_dropout:
            seen = dropout(torch.ones_like(frames[..., :1]), self.p_frame_dropout) > 0
            frames = torch.where(seen, frames, torch.full_like(frames[..., :1], MEAN_LOG_MEL))

        rnn, prenet_dim = self.attention_rnn, self.prenet_dim
        drawn = seeds and torch.stack([*islice(self.prenet.draw_masks(seeds, like=frames), steps)], dim=1)
        known = linear(self.prenet(frames, drawn), rnn.weight_ih[:, :prenet_dim], rnn.bias_ih + rnn.bias_hh)
        feedback = torch.cat([rnn.weight_hh, rnn.weight_ih[:, prenet_dim:]], dim=1)
        masks = self.dropout_masks(known, self.p_attention_dropout)
        attended, alignments = self.attention_layer.over_time(known, feedback, values, padding, masks)

        rnn = self.decoder_rnn
        known = linear(attended, rnn.weight_ih, rnn.bias_ih + rnn.bias_hh)
        masks = self.dropout_masks(known, self.p_decoder_dropout)
        hidden = lstm_over_time(known, rnn.weight_hh, masks)
        context = attended[..., self.attention_rnn.hidden_size :]
        mel, gate = self.output(hidden, context, partial(linear, **self.output_layer()._asdict()))
        return Decoded(self.in_frames(mel.transpose(0, 1))[:, :, :length], gate.t(), alignments.transpose(0, 1))

    def step(
        self,
        frames: Tensor,
        masks: Tensor,
        attention: AttentionState,
        decoder: DecoderState,
        memory: Memory,
        values: Tensor,
        linears: Sequence[Callable[[Tensor], Tensor]],
    ) -> tuple[Tensor, Tensor, AttentionState, DecoderState]:
        """One step of inference: the frames of the step before [B, r * n_mel] -> its frames, its gate [B], the states.

        linears: the layers of ``frame_by_frame`` as functions; masks [2, B, prenet_dim] of the prenet.
        """
        *prenet, attention_gates, query, decoder_gates, output = linears
        before = self.prenet(frames, masks, prenet)
        gates = attention_gates(torch.cat([before, attention.context, attention.hidden], dim=1))
        attention = self.attend(gates, query, attention, memory, values)
        gates = decoder_gates(torch.cat([attention.hidden, attention.context, decoder.hidden], dim=1))
        decoder = DecoderState(*lstm(gates, decoder.cell))
        return *self.output(decoder.hidden, attention.context, output), attention, decoder

    def frame_by_frame(self, dtype: torch.dtype) -> FrameByFrame:
        """The linear layers for ``step``, all but the last one in this precision."""
        prenet_1, prenet_2, query = (
            Affine(layer.linear_layer.weight.to(dtype), None)
            for layer in (*self.prenet.layers, self.attention_layer.query_layer)
        )
        attention, decoder = (
            Affine(torch.cat([rnn.weight_ih, rnn.weight_hh], dim=1).to(dtype), (rnn.bias_ih + rnn.bias_hh).to(dtype))
            for rnn in (self.attention_rnn, self.decoder_rnn)
        )
        return FrameByFrame(prenet_1, prenet_2, attention, query, decoder, self.output_layer())

    def output_layer(self) -> Affine:
        """The layer from the decoder's hidden state and the context to a step's frames and its gate, in float32."""
        layers = (self.linear_projection.linear_layer, self.gate_layer.linear_layer)
        return Affine(*(torch.cat([getattr(each, name) for each in layers]).float() for name in Affine._fields))

    def initial_state(self, values: Tensor) -> tuple[AttentionState, DecoderState]:
        """Zeros, for values [B, N, E]."""
        batch, symbols, channels = values.shape
        zeros = lambda *shape: values.new_zeros(batch, *shape)  # noqa: E731
        exact = lambda *shape: values.new_zeros(batch, *shape, dtype=torch.float32)  # noqa: E731
        attention, decoder = self.attention_rnn.hidden_size, self.decoder_rnn.hidden_size
        return (
            AttentionState(zeros(attention), exact(attention), zeros(channels), exact(2, symbols)),
            DecoderState(zeros(decoder), exact(decoder)),
        )

    def attend(
        self,
        gates: Tensor,
        query: Callable[[Tensor], Tensor],
        state: AttentionState,
        memory: Memory,
        values: Tensor,
    ) -> AttentionState:
        """One step of attention in inference: gates [B, 4H], the layer to the query, values [B, N, E]."""
        hidden, cell = lstm(gates, state.cell)
        weights = self.attention_layer(query(hidden), state.weights, memory)
        context = weights[:, None].to(values.dtype) @ values
        weights = torch.stack([weights, state.weights[:, 1] + weights], dim=1)
        return AttentionState(hidden, cell, context[:, 0], weights)

    def dropout_masks(self, gates: Tensor, p: float) -> Tensor | None:
        """What the hidden states [S, B, H] of these gates [S, B, 4H] are multiplied by, drawn all at once; None without
        dropout."""
        if not self.training or p == 0:
            return None
        return dropout(torch.ones_like(gates[..., : gates.shape[2] // 4]), p)

    def output(self, hidden: Tensor, context: Tensor, linear: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """hidden [..., H], context [..., E] -> frames [..., r * n_mel], gate [...], both float32."""
        both = torch.cat([hidden, context], dim=-1).float()
        with torch.autocast(both.device.type, enabled=False):
            frames, gate = linear(both).split([self.n_frames_per_step * self.n_mel_channels, 1], dim=-1)
        return frames, gate[..., 0]

    def in_frames(self, steps: Tensor) -> Tensor:
        """steps [B, S, r * n_mel], frame after frame -> mel [B, n_mel, S * r]."""
        return steps.reshape(len(steps), -1, self.n_mel_channels).transpose(1, 2)
