"""Tacotron 2 (Shen et al. 2018, arXiv:1712.05884): from text to mel spectrograms.

Parameter names and shapes are those of NVIDIA/tacotron2, so state dicts interchange.
Shapes: B clips, N text symbols, T mel frames, S steps of the decoder, E encoder channels.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.layers.dropout import dropout
from common.layers.matmul import linear
from common.layers.module_list import ModuleList
from tacotron2 import decoding
from tacotron2.alignment import alignment_quality
from tacotron2.attention import ConvNorm, Gain
from tacotron2.decoder import Decoder, steps_of
from tacotron2.lstm import lstm_over_time

P_CONV_DROPOUT = 0.5
"Dropout of the convolutions in encoder and postnet."
NOT_OF_THE_MODEL = {
    "epochs", "iters_per_checkpoint", "seed", "dynamic_loss_scaling", "fp16_run", "distributed_run", "dist_backend",
    "dist_url", "cudnn_enabled", "cudnn_benchmark", "ignore_layers", "load_mel_from_disk", "training_files",
    "validation_files", "text_cleaners", "max_wav_value", "sampling_rate", "filter_length", "hop_length", "win_length",
    "mel_fmin", "mel_fmax", "use_saved_learning_rate", "learning_rate", "weight_decay", "grad_clip_thresh",
    "batch_size",
}  # fmt: skip
"NVIDIA's hyperparameters of training and audio, which its code keeps in one list with the model's."
CLOSED = -60
"""Value of an LSTM's gates at padding, before activation: they let nothing in and nothing out. So one direction ends
with zeros, and the other comes in from the padding unaffected by it. Not lower, since exp would overflow."""
PADDED_GATE = 1e3
"The gate's logit behind the end of a clip: certainly over."


@dataclass
class Utterance:
    """One clip of ``Tacotron2.infer``, its tensors on the CPU."""

    mel: Tensor
    "[n_mel, length] float32, refined by the postnet."
    length: int
    "Frames; all frames of a step count."
    stopped: bool
    "Whether the gate ended it; if not, it ran into max_decoder_steps."
    alignment: Tensor
    "[S, N] float32, attention of its steps to its own symbols."
    gate: Tensor
    "[S] float32, each step's probability of being the last."
    diagonality: float
    coverage: float
    "See ``tacotron2.alignment``."


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """lengths [B] -> [B, size] bool, True behind the end."""
    return torch.arange(size, device=lengths.device) >= lengths[:, None]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of [B, C, T] in the precision of its own parameters, which O2 leaves at float32.

    As an image it may have its channels last in memory, where BatchNorm1d would make a copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] -> [B, C, T], of the same precision."""
        # PyTorch takes half-precision input as it is, but may then sum the gradients up in half precision.
        return super().forward(x.to(self.weight.dtype).unsqueeze(2)).squeeze(2).to(x.dtype)


def convolution(n_in: int, n_out: int, kernel_size: int, gain: Gain) -> nn.Sequential:
    """A layer of encoder and postnet."""
    return nn.Sequential(ConvNorm(n_in, n_out, kernel_size, gain=gain), BatchNorm(n_out))


class BiLSTM(nn.LSTM):
    """A bidirectional LSTM over texts of several lengths, each as if it were alone.

    The parameters are torch's. It runs as matrix products: packed sequences want their lengths on
    the host, and not every device has an LSTM.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter
    weight_ih_l0_reverse: nn.Parameter
    weight_hh_l0_reverse: nn.Parameter
    bias_ih_l0_reverse: nn.Parameter
    bias_hh_l0_reverse: nn.Parameter

    def __init__(self, n_in: int, n_hidden: int):
        super().__init__(n_in, n_hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:  # type: ignore[override]  # padding, no states
        """x [B, N, in], padding [B, N] -> [B, N, 2 * hidden], zeros behind the end."""
        if x.is_cuda and not torch.is_grad_enabled():
            return self.by_cudnn(x, padding)
        biases = (self.bias_ih_l0 + self.bias_hh_l0, self.bias_ih_l0_reverse + self.bias_hh_l0_reverse)
        forwards, backwards = (
            linear(x, weight, bias).masked_fill(padding[:, :, None], CLOSED).transpose(0, 1)
            for weight, bias in zip((self.weight_ih_l0, self.weight_ih_l0_reverse), biases)
        )
        forwards = lstm_over_time(forwards, self.weight_hh_l0)
        backwards = lstm_over_time(backwards.flip(0), self.weight_hh_l0_reverse).flip(0)
        return torch.cat([forwards.transpose(0, 1), backwards.transpose(0, 1)], dim=2)

    def by_cudnn(self, x: Tensor, padding: Tensor) -> Tensor:
        """``forward`` in a few kernels, without gradients: x [B, N, in], padding [B, N] -> [B, N, 2 * hidden]. The host
        waits for the lengths."""
        lengths = (~padding).sum(1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Encoder(nn.Module):
    """Convolutions over the embedded text, then a bidirectional LSTM."""

    def __init__(self, embedding_dim: int, n_convolutions: int, kernel_size: int):
        super().__init__()
        self.convolutions = ModuleList(
            convolution(embedding_dim, embedding_dim, kernel_size, "relu") for _ in range(n_convolutions)
        )
        self.lstm = BiLSTM(embedding_dim, embedding_dim // 2)

    def forward(self, x: Tensor, padding: Tensor, alone: bool) -> Tensor:
        """x [B, E, N], padding [B, N] -> [B, N, E], zeros behind the end.

        ``alone``: the convolutions see zeros there, too, as if each text was a batch of its own. In
        training they see the symbol of the padding, as in NVIDIA's.
        """
        for layer in self.convolutions:
            x = x.masked_fill(padding[:, None], 0) if alone else x
            x = dropout(F.relu(layer(x)), P_CONV_DROPOUT, self.training)
        return self.lstm(x.transpose(1, 2), padding)


class Postnet(nn.Module):
    """Convolutions over all frames: they refine what the decoder made while it could only see the past."""

    def __init__(self, n_mel_channels: int, embedding_dim: int, n_convolutions: int, kernel_size: int):
        super().__init__()
        sizes = [n_mel_channels, *[embedding_dim] * (n_convolutions - 1), n_mel_channels]
        gains: list[Gain] = ["tanh" if i < n_convolutions - 1 else "linear" for i in range(n_convolutions)]
        self.convolutions = ModuleList(
            convolution(n_in, n_out, kernel_size, gain) for n_in, n_out, gain in zip(sizes, sizes[1:], gains)
        )

    def forward(self, mel: Tensor, padding: Tensor | None = None) -> Tensor:
        """mel [B, n_mel, T] -> what to add to it. With padding [B, T] each clip is refined as if alone."""
        x = mel
        for layer in self.convolutions:
            x = x if padding is None else x.masked_fill(padding[:, None], 0)
            x = layer(x)
            x = x if layer is self.convolutions[-1] else torch.tanh(x)
            x = dropout(x, P_CONV_DROPOUT, self.training)
        return x


class Tacotron2(nn.Module):
    """Encoder, attentive decoder, postnet.

    Args: NVIDIA's hyperparameters; see ``tacotron2.config.Tacotron2Config`` for each. Those of
        training and audio may be among them, without effect.

    Raises ValueError for sizes that do not fit together.
    """

    def __init__(
        self,
        n_mel_channels: int,
        n_symbols: int,
        symbols_embedding_dim: int,
        encoder_kernel_size: int,
        encoder_n_convolutions: int,
        encoder_embedding_dim: int,
        postnet_embedding_dim: int,
        postnet_kernel_size: int,
        postnet_n_convolutions: int,
        mask_padding: bool,
        p_prenet_dropout: float = 0.5,
        **decoder: Any,
    ):
        super().__init__()
        if symbols_embedding_dim != encoder_embedding_dim or encoder_embedding_dim % 2:
            raise ValueError(
                f"symbols_embedding_dim {symbols_embedding_dim} and encoder_embedding_dim {encoder_embedding_dim}"
                " must be the same even number"
            )
        if postnet_n_convolutions < 2:
            raise ValueError(f"postnet_n_convolutions is {postnet_n_convolutions}, must be 2 or above")
        self.mask_padding = mask_padding
        bound = math.sqrt(6 / (n_symbols + symbols_embedding_dim))
        rows = torch.empty(n_symbols, symbols_embedding_dim)
        if not rows.is_meta:  # as in Conv1d, its operator is slow to import
            nn.init.normal_(rows)  # as nn.Embedding does: a seed goes on to give the weights that it gave
        self.embedding = nn.Embedding.from_pretrained(rows.uniform_(-bound, bound), freeze=False)
        self.encoder = Encoder(encoder_embedding_dim, encoder_n_convolutions, encoder_kernel_size)
        decoder = {name: value for name, value in decoder.items() if name not in NOT_OF_THE_MODEL}
        self.decoder = Decoder(n_mel_channels, encoder_embedding_dim, p_prenet_dropout=p_prenet_dropout, **decoder)
        self.postnet = Postnet(n_mel_channels, postnet_embedding_dim, postnet_n_convolutions, postnet_kernel_size)

    def forward(
        self, text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict the frames of each step from those before it (teacher forcing).

        text [B, N] ids, text_lengths [B], mel [B, n_mel, T], mel_lengths [B]; behind the ends 0.
        Returns mel and mel_postnet [B, n_mel, T], gate [B, S] (the logit of being the step with the
        last frame) and alignments [B, S, N], all float32. With mask_padding, both mels are 0 and the gate is
        1000 behind the end.
        """
        padding = padding_mask(text_lengths, text.shape[1])
        values = self.encoder(self.embedding(text).transpose(1, 2), padding, alone=False)
        mel, gate, alignments = self.decoder(values, padding, mel)
        mel_postnet = mel + self.postnet(mel.to(values.dtype)).float()
        if self.mask_padding:
            padding = padding_mask(mel_lengths, mel.shape[2])
            mel, mel_postnet = (each.masked_fill(padding[:, None], 0) for each in (mel, mel_postnet))
            steps = steps_of(mel_lengths, self.decoder.n_frames_per_step)
            gate = gate.masked_fill(padding_mask(steps, gate.shape[1]), PADDED_GATE)
        return mel, mel_postnet, gate, alignments

    @torch.no_grad()
    def predict(
        self, text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, seeds: list[int]
    ) -> list[Utterance]:
        """Predict the frames of each step from those before it, each clip as if it was a batch of its own.

        Arguments and shapes as of ``forward``; a clip's prenet dropout follows from its seed. The utterances are on
        the CPU, each as long as its ``mel``. RuntimeError in training mode, as ``infer``.
        """
        if self.training:
            raise RuntimeError("predict needs the model in evaluation mode: call eval()")
        padding = padding_mask(text_lengths, text.shape[1])
        values = self.encoder(self.embedding(text).transpose(1, 2), padding, alone=True)
        decoded = self.decoder(values, padding, mel, seeds)
        frames = padding_mask(mel_lengths, mel.shape[2])
        refined = decoded.mel + self.postnet(decoded.mel.to(values.dtype), frames).float()
        utterances = []
        for i, (length, symbols) in enumerate(zip(mel_lengths.tolist(), text_lengths.tolist())):
            steps = steps_of(length, self.decoder.n_frames_per_step)
            alignment = decoded.alignments[i, :steps, :symbols].cpu()
            gate = torch.sigmoid(decoded.gate[i, :steps]).cpu()
            quality = alignment_quality(alignment)
            utterances.append(Utterance(refined[i, :, :length].cpu(), length, True, alignment, gate, *quality))
        return utterances

    @torch.no_grad()
    def infer(
        self,
        text: Tensor,
        text_lengths: Tensor,
        seeds: list[int] | None = None,
        make_steps: decoding.MakeSteps | None = None,
    ) -> list[Utterance]:
        """Speak each text, as if it was a batch of its own.

        text [B, N] ids, text_lengths [B]. A clip's prenet dropout follows from its seed; without
        seeds they are drawn from torch's default generator. ``make_steps`` as of ``decoding.decode``. RuntimeError in
        training mode, whose dropout and batch statistics belong to no clip; ValueError for a text without symbols.
        """
        if self.training:
            raise RuntimeError("infer needs the model in evaluation mode: call eval()")
        if text_lengths.min() < 1:
            raise ValueError("a text has no symbols")
        if seeds is None:
            seeds = torch.randint(2**31, (len(text),)).tolist()
        padding = padding_mask(text_lengths, text.shape[1])
        values = self.encoder(self.embedding(text).transpose(1, 2), padding, alone=True)
        decoded, lengths, stopped = decoding.infer(self.decoder, values, padding, seeds, make_steps)
        frames = padding_mask(lengths, decoded.mel.shape[2])
        mel = decoded.mel + self.postnet(decoded.mel.to(values.dtype), frames).float()
        # The whole batch is copied from a card at once, since the host waits for each copy.
        mel, alignments, gates = mel.cpu(), decoded.alignments.cpu(), torch.sigmoid(decoded.gate).cpu()
        ends = torch.stack([lengths, text_lengths, stopped.long()], dim=1).tolist()
        utterances = []
        for i, (length, symbols, has_stopped) in enumerate(ends):
            steps = length // self.decoder.n_frames_per_step
            alignment, gate = alignments[i, :steps, :symbols], gates[i, :steps]
            quality = alignment_quality(alignment)
            utterances.append(Utterance(mel[i, :, :length], length, bool(has_stopped), alignment, gate, *quality))
        return utterances
