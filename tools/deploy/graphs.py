"""The two models as the graphs that inference engines know them by, in NVIDIA's split and names.

Each graph is a small module around parts of the models, which do all the computing. The random
numbers they need and the level of WaveGlow's noise are inputs, separately for each clip.
"""

import copy
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacotron2.attention import Memory
from tacotron2.decoder import AttentionState, Decoder, DecoderState
from tacotron2.decoding import decode
from tacotron2.model import BiLSTM, Tacotron2, padding_mask
from tacotron2.prenet import Prenet
from tacotron2.recorded_steps import RecordedSteps
from waveglow.model import WaveGlow


class EncoderGraph(nn.Module):
    """Text to what the decoder attends to."""

    def __init__(self, model: Tacotron2):
        super().__init__()
        self.embedding = model.embedding
        self.encoder = model.encoder
        self.memory_layer = model.decoder.attention_layer.memory_layer

    def forward(self, sequences: Tensor, sequence_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sequences [B, N] ids, sequence_lengths [B] -> memory [B, N, E], processed_memory [B, N, A], lengths."""
        padding = padding_mask(sequence_lengths, sequences.shape[1])
        memory = self.encoder(self.embedding(sequences).transpose(1, 2), padding, alone=True)
        return memory, self.memory_layer(memory), sequence_lengths.clone()


class DecoderIterGraph(nn.Module):
    """One step of the decoder."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder
        # What does not depend on the text is computed here, once.
        layers = decoder.frame_by_frame(decoder.attention_rnn.weight_ih.dtype)
        self.linears = [
            partial(F.linear, weight=weight.detach(), bias=None if bias is None else bias.detach())
            for weight, bias in layers
        ]
        self.kernel = decoder.attention_layer.kernel().detach()

    def forward(
        self,
        decoder_input: Tensor,
        attention_hidden: Tensor,
        attention_cell: Tensor,
        decoder_hidden: Tensor,
        decoder_cell: Tensor,
        attention_weights: Tensor,
        attention_weights_cum: Tensor,
        attention_context: Tensor,
        memory: Tensor,
        processed_memory: Tensor,
        mask: Tensor,
        prenet_masks: Tensor,
    ) -> tuple[Tensor, ...]:
        """See ``tacotron2_signatures``; mask is True behind the end of a text."""
        weights = torch.stack([attention_weights, attention_weights_cum], dim=1)
        frames, gate, attention, state = self.decoder.step(
            decoder_input,
            prenet_masks.transpose(0, 1),
            AttentionState(attention_hidden, attention_cell, attention_context, weights),
            DecoderState(decoder_hidden, decoder_cell),
            Memory(2 * processed_memory.transpose(1, 2), mask[:, None], self.kernel),
            memory,
            self.linears,
        )
        return (
            frames, gate[:, None], attention.hidden, attention.cell, state.hidden, state.cell,
            attention.weights[:, 0], attention.weights[:, 1], attention.context,
        )  # fmt: skip


class DecoderGraph(nn.Module):
    """The decoder's whole loop; as an ONNX graph it is made by ``export_model.decoder_loop``."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder
        self._make_steps = RecordedSteps(decoder)

    def forward(
        self, memory: Tensor, processed_memory: Tensor, mask: Tensor, prenet_masks: Tensor, max_decoder_steps: Tensor
    ) -> tuple[Tensor, ...]:
        """See ``tacotron2_signatures``; mask is True behind the end of a text. ``processed_memory`` is not needed."""
        masks = prenet_masks.permute(1, 2, 0, 3)
        decoded, lengths, _ = decode(self.decoder, memory, mask, masks, max_decoder_steps, self._make_steps)
        return decoded.mel, decoded.gate, decoded.alignments, lengths.to(torch.int32)


class PostnetGraph(nn.Module):
    """The decoder's spectrogram to the refined one, each clip as if it was alone."""

    def __init__(self, model: Tacotron2):
        super().__init__()
        self.postnet = model.postnet

    def forward(self, mel_outputs: Tensor, mel_lengths: Tensor) -> Tensor:
        """mel_outputs [B, n_mel, T] float32, mel_lengths [B] -> [B, n_mel, T]."""
        dtype = next(self.postnet.parameters()).dtype  # a convolution's; batch norm's may be another
        padding = padding_mask(mel_lengths, mel_outputs.shape[2])
        return mel_outputs + self.postnet(mel_outputs.to(dtype), padding).float()


class WaveGlowGraph(nn.Module):
    """Spectrogram and noise to audio."""

    def __init__(self, model: WaveGlow):
        super().__init__()
        self.model = model
        self.channels = [shape[1] for shape in model.noise_shapes(1, 1)]

    def forward(self, mel: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
        """mel [B, n_mel, T, 1], z [B, n_group, L, 1] of unit variance, sigma [B] -> audio [B, T * hop_length].

        The channels of z are those of ``WaveGlow.noise_shapes``, in that order.
        """
        noise = z[..., 0].split(self.channels, dim=1)
        return self.model.infer(mel[..., 0], sigma[:, None, None], list(noise))


class LSTMOperator(nn.Module):
    """A ``BiLSTM`` as ONNX's operator of that name, which knows of lengths; only to be exported.

    The model's own goes symbol by symbol in Python, which a graph for texts of any length cannot.
    """

    input_weight: Tensor
    "[2, 4H, in]"
    hidden_weight: Tensor
    "[2, 4H, H]"
    bias: Tensor
    "[2, 8H]"

    def __init__(self, lstm: BiLSTM):
        super().__init__()
        self.hidden_size = lstm.hidden_size
        both = lambda name: [_in_onnx_order(getattr(lstm, f"{name}_l0{end}")) for end in ("", "_reverse")]  # noqa: E731
        self.register_buffer("input_weight", torch.stack(both("weight_ih")))
        self.register_buffer("hidden_weight", torch.stack(both("weight_hh")))
        biases = [torch.cat(pair) for pair in zip(both("bias_ih"), both("bias_hh"))]
        self.register_buffer("bias", torch.stack(biases))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """x [B, N, in], padding [B, N] -> [B, N, 2 * hidden], zeros behind the end."""
        lengths = (~padding).sum(1).to(torch.int32)
        y = torch.onnx.ops.symbolic(
            "LSTM",
            [x.transpose(0, 1), self.input_weight, self.hidden_weight, self.bias, lengths],
            {"hidden_size": self.hidden_size, "direction": "bidirectional"},
            dtype=x.dtype,
            shape=[x.shape[1], 2, x.shape[0], self.hidden_size],
        )
        return y.permute(2, 0, 1, 3).flatten(2)


def _in_onnx_order(parameter: Tensor) -> Tensor:
    """Rows [4H, ...] of torch's gates input, forget, candidate, output -> input, output, forget, candidate."""
    input_gate, forget_gate, candidate, output_gate = parameter.detach().chunk(4)
    return torch.cat([input_gate, output_gate, forget_gate, candidate])


def draw_masks(prenet: Prenet, seeds: list[int], steps: int) -> Tensor:
    """``prenet_masks`` [B, steps, 2, prenet_dim]; those of a clip follow from its seed alone."""
    masks = torch.stack(list(islice(prenet.draw_masks(seeds, like=torch.zeros(())), steps)))
    return masks.permute(2, 0, 1, 3).contiguous()


def tacotron2_modules(model: Tacotron2) -> dict[str, nn.Module]:
    """The modules of all graphs."""
    return {
        "encoder": EncoderGraph(model),
        "decoder_iter": DecoderIterGraph(model.decoder),
        "decoder": DecoderGraph(model.decoder),
        "postnet": PostnetGraph(model),
    }


def exportable(encoder: EncoderGraph) -> EncoderGraph:
    """A copy with ONNX's LSTM in place of the model's."""
    encoder = copy.deepcopy(encoder)
    encoder.encoder.add_module("lstm", LSTMOperator(encoder.encoder.lstm))
    return encoder
