"""The decoder of Tacotron 2: from encoded text to mel frames, one after the other.

With teacher forcing every frame before the present one is known, and the decoder LSTM never feeds
the attention. So only the attention LSTM with its attention, and the decoder LSTM's own feedback,
go frame by frame; everything else is one matrix product over all frames. Inference runs the same
functions with one frame at a time.
Shapes: B clips, T frames, N text symbols, E encoder channels, H channels of an LSTM.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tacotron2.attention import Attention, Linear

MASKS_AT_A_TIME = 64
"Steps of inference whose dropout masks are drawn at once."


class _CollectGradient(torch.autograd.Function):
    """The identity; in the backward pass it is where a factor's gradient is computed (``SharedFactor``)."""

    @staticmethod
    def forward(ctx, known: Tensor, factor: Tensor, inputs: list[Tensor]) -> Tensor:
        ctx.inputs, ctx.dtype = inputs, factor.dtype
        return known.view_as(known)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        if len(ctx.inputs) != len(gradient):
            raise RuntimeError("backward a second time, or not every step was run")
        # [T, ..., R, *] -> [..., T * R, *]
        x, y = (steps.movedim(0, -3).flatten(-3, -2) for steps in (torch.stack(ctx.inputs), gradient))
        ctx.inputs.clear()
        return gradient, (x.transpose(-1, -2) @ y).to(ctx.dtype), None


class SharedFactor:
    """``y_t = known_t + x_t @ factor`` with the same factor [..., K, O] at every step of a recurrence.

    Autograd alone would compute the factor's gradient at each step and add them up; for an LSTM's
    matrices that costs more than all the rest. Here the steps know the factor as a constant, and
    its gradient is one product over all steps: of the inputs, which are kept in a list, and the
    gradients that arrive at ``known`` [T, ..., R, O]. Can go backward once.
    """

    def __init__(self, factor: Tensor):
        self.factor = factor
        self.constant = factor.detach()
        self.inputs: list[Tensor] = []

    def collect(self, known: Tensor) -> tuple[Tensor, ...]:
        """The known parts of all steps [T, ..., R, O], one by one, for use in training."""
        return _CollectGradient.apply(known, self.factor, self.inputs).unbind(0)

    def __call__(self, known: Tensor, x: Tensor) -> Tensor:
        """One step: known [..., R, O], x [..., R, K] -> [..., R, O]."""
        # Autocast would convert the constant at every step.
        self.constant = self.constant.to(known.dtype)
        x = x.to(known.dtype)
        if torch.is_grad_enabled():
            self.inputs.append(x.detach())
        return known + x @ self.constant


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The nonlinear part of an LSTM step: gates [..., 4H] before activation, cell [..., H] float32 -> hidden, cell."""
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=-1)
    cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * candidate.tanh()
    return (output_gate.sigmoid() * cell.tanh()).to(gates.dtype), cell


class Prenet(nn.Module):
    """A bottleneck for the frame before; its dropout stays on in inference, where it gives the variety."""

    def __init__(self, n_mel_channels: int, prenet_dim: int, p_dropout: float):
        super().__init__()
        self.p_dropout = p_dropout
        sizes = [n_mel_channels, prenet_dim, prenet_dim]
        self.layers = nn.ModuleList(Linear(n_in, n_out, bias=False) for n_in, n_out in pairwise(sizes))

    def forward(self, frames: Tensor, masks: Tensor | None = None) -> Tensor:
        """frames [..., n_mel] -> [..., prenet_dim]; masks [2, ..., prenet_dim] of ``draw_masks`` or drawn here."""
        for i, layer in enumerate(self.layers):
            frames = F.relu(layer(frames))
            frames = F.dropout(frames, self.p_dropout) if masks is None else frames * masks[i]
        return frames

    def draw_masks(self, seeds: list[int], like: Tensor) -> Iterator[Tensor]:
        """For step after step the masks [2, B, prenet_dim]; those of a clip depend on its seed alone.

        Drawn on the CPU, so that every device gets the same.
        """
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (MASKS_AT_A_TIME, len(self.layers), self.layers[-1].linear_layer.out_features)
        while True:
            uniform = torch.stack([torch.rand(shape, generator=generator) for generator in generators], dim=2)
            yield from ((uniform >= self.p_dropout) / (1 - self.p_dropout)).to(like)


class AttentionState(NamedTuple):
    """What the attention LSTM and the attention carry from frame to frame."""

    hidden: Tensor
    "[B, H]"
    cell: Tensor
    "[B, H] float32"
    context: Tensor
    "[B, E], the memory weighted by the attention."
    weights: Tensor
    "[B, 2, N] float32: the attention weights, and their sum over all frames so far."


class DecoderState(NamedTuple):
    """What the decoder LSTM carries from frame to frame."""

    hidden: Tensor
    "[B, H]"
    cell: Tensor
    "[B, H] float32"


class Decoded(NamedTuple):
    """What the decoder makes of a batch."""

    mel: Tensor
    "[B, n_mel, T] float32"
    gate: Tensor
    "[B, T] float32, the logit of being the last frame."
    alignments: Tensor
    "[B, T, N] float32"


class Recurrence:
    """The parts of a decoder's step that are the same at every frame of a batch."""

    def __init__(self, decoder: "Decoder", values: Tensor, padding: Tensor):
        rnn, prenet_dim = decoder.attention_rnn, decoder.prenet_dim
        self.memory = decoder.attention_layer.prepare(values, padding)
        self.attention = SharedFactor(torch.cat([rnn.weight_ih[:, prenet_dim:], rnn.weight_hh], dim=1).t())
        self.context = SharedFactor(values)
        self.decoder = SharedFactor(decoder.decoder_rnn.weight_hh.t())


class Decoder(nn.Module):
    """Prenet, attention LSTM, attention, decoder LSTM, projections to a frame and to the gate.

    Arguments are those of ``Tacotron2``.
    """

    def __init__(
        self,
        n_mel_channels: int,
        encoder_embedding_dim: int,
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
    ):
        super().__init__()
        self.n_mel_channels = n_mel_channels
        self.prenet_dim = prenet_dim
        self.p_attention_dropout = p_attention_dropout
        self.p_decoder_dropout = p_decoder_dropout
        self.max_decoder_steps = max_decoder_steps
        self.gate_threshold = gate_threshold
        self.prenet = Prenet(n_mel_channels, prenet_dim, p_prenet_dropout)
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
        self.linear_projection = Linear(decoder_rnn_dim + encoder_embedding_dim, n_mel_channels)
        self.gate_layer = Linear(decoder_rnn_dim + encoder_embedding_dim, 1, gain="sigmoid")

    def forward(self, values: Tensor, padding: Tensor, mel: Tensor) -> Decoded:
        """Teacher forcing: the encoder's values [B, N, E], padding [B, N], mel [B, n_mel, T] to predict."""
        recurrence = Recurrence(self, values, padding)
        attention, decoder = self.initial_state(values)
        go_frame = torch.zeros_like(mel[:, :, :1])
        frames = torch.cat([go_frame, mel[:, :, :-1]], dim=2).permute(2, 0, 1).to(values.dtype)

        known = recurrence.attention.collect(self.attention_input(self.prenet(frames)))
        nothing = recurrence.context.collect(values.new_zeros(()).expand(len(frames), len(values), 1, values.shape[2]))
        attended = []
        for gates, zeros in zip(known, nothing):
            attention = self.attention_step(gates, zeros, attention, recurrence)
            attended.append((attention.hidden, attention.context, attention.weights[:, 0]))
        hidden, context, alignments = (torch.stack(each) for each in zip(*attended))

        known = recurrence.decoder.collect(self.decoder_input(hidden, context))
        decoded = []
        for gates in known:
            decoder = self.decoder_step(gates, decoder, recurrence)
            decoded.append(decoder.hidden)
        mel, gate = self.output(torch.stack(decoded), context)
        return Decoded(mel.permute(1, 2, 0), gate.t(), alignments.transpose(0, 1))

    def infer(self, values: Tensor, padding: Tensor, seeds: list[int]) -> tuple[Decoded, Tensor, Tensor]:
        """Feed each frame back as the next one's input, until every clip's gate has fired.

        values [B, N, E], padding [B, N], a seed for the prenet's dropout of each clip. Returns what
        was decoded, of which a clip's own part are its first ``lengths`` frames; ``lengths`` [B],
        the frame with which the gate fired included; and [B] bool, whether it did before
        max_decoder_steps.
        """
        recurrence = Recurrence(self, values, padding)
        attention, decoder = self.initial_state(values)
        frame = values.new_zeros(len(values), self.n_mel_channels)
        nothing = values.new_zeros(len(values), 1, values.shape[2])
        lengths = torch.zeros(len(values), dtype=torch.long, device=values.device)
        stopped = torch.zeros_like(lengths, dtype=torch.bool)
        steps = []
        for _, masks in zip(range(self.max_decoder_steps), self.prenet.draw_masks(seeds, like=values)):
            known = self.attention_input(self.prenet(frame, masks))
            attention = self.attention_step(known, nothing, attention, recurrence)
            decoder = self.decoder_step(self.decoder_input(attention.hidden, attention.context), decoder, recurrence)
            frame, gate = self.output(decoder.hidden, attention.context)
            steps.append((frame, gate, attention.weights[:, 0]))
            frame = frame.to(values.dtype)
            lengths += ~stopped
            stopped |= torch.sigmoid(gate) > self.gate_threshold
            if stopped.all():
                break
        mel, gate, alignments = (torch.stack(each, dim=1) for each in zip(*steps))
        return Decoded(mel.transpose(1, 2), gate, alignments), lengths, stopped

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

    def attention_input(self, prenet: Tensor) -> Tensor:
        """The prenet's share [..., prenet_dim] of the attention LSTM's gates [..., 4H], biases included."""
        rnn = self.attention_rnn
        return F.linear(prenet, rnn.weight_ih[:, : self.prenet_dim], rnn.bias_ih + rnn.bias_hh)

    def attention_step(
        self, known: Tensor, nothing: Tensor, state: AttentionState, recurrence: Recurrence
    ) -> AttentionState:
        """One frame of attention: known [B, 4H] of ``attention_input``, nothing [B, 1, E] zeros."""
        gates = recurrence.attention(known, torch.cat([state.context, state.hidden], dim=1))
        hidden, cell = lstm(gates, state.cell)
        # What feeds back is what was dropped out, as in NVIDIA's.
        hidden = F.dropout(hidden, self.p_attention_dropout, self.training)
        weights = self.attention_layer(hidden, state.weights, recurrence.memory)
        context = recurrence.context(nothing, weights[:, None])[:, 0]
        weights = torch.stack([weights, state.weights[:, 1] + weights], dim=1)
        return AttentionState(hidden, cell, context, weights)

    def decoder_input(self, attention_hidden: Tensor, context: Tensor) -> Tensor:
        """The share of [..., H] and [..., E] of the decoder LSTM's gates [..., 4H], biases included."""
        rnn = self.decoder_rnn
        return F.linear(torch.cat([attention_hidden, context], dim=-1), rnn.weight_ih, rnn.bias_ih + rnn.bias_hh)

    def decoder_step(self, known: Tensor, state: DecoderState, recurrence: Recurrence) -> DecoderState:
        """One frame of the decoder LSTM: known [B, 4H] of ``decoder_input``."""
        hidden, cell = lstm(recurrence.decoder(known, state.hidden), state.cell)
        return DecoderState(F.dropout(hidden, self.p_decoder_dropout, self.training), cell)

    def output(self, hidden: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [..., H], context [..., E] -> frames [..., n_mel], gate [...], both float32."""
        both = torch.cat([hidden, context], dim=-1).float()
        layers = (self.linear_projection.linear_layer, self.gate_layer.linear_layer)
        with torch.autocast(both.device.type, enabled=False):
            frames, gate = (F.linear(both, layer.weight.float(), layer.bias.float()) for layer in layers)
        return frames, gate[..., 0]
