"""Tacotron2 of toy size with lively output, a batch for it, and one whose clips stop at their own times."""

from dataclasses import asdict

import torch
from torch import nn

from tacotron2 import decoding
from tacotron2.config import Tacotron2Config
from tacotron2.model import BatchNorm, Tacotron2, padding_mask

SEEDS = [11, 12, 13, 14]
"Of the clips of ``toy_batch``."


def toy(**changes):
    """A model for inputs of ``toy_batch``, with weights that make its output lively."""
    torch.manual_seed(0)
    sizes = dict(
        n_mel_channels=6, n_symbols=20, symbols_embedding_dim=16, encoder_embedding_dim=16, decoder_rnn_dim=20,
        prenet_dim=12, attention_rnn_dim=18, attention_dim=10, attention_location_n_filters=4,
        attention_location_kernel_size=7, postnet_embedding_dim=14, max_decoder_steps=40,
    )  # fmt: skip
    model = Tacotron2(**asdict(Tacotron2Config(**(sizes | changes))))
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.ndim > 1:
                parameter *= 3
    for module in model.modules():
        if isinstance(module, BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def toy_batch():
    torch.manual_seed(1)
    text_lengths, mel_lengths = torch.tensor([12, 7, 9, 3]), torch.tensor([20, 25, 11, 8])
    text = torch.randint(1, 20, (4, 12)).masked_fill(padding_mask(text_lengths, 12), 0)
    mel = torch.randn(4, 6, 25).masked_fill(padding_mask(mel_lengths, 25)[:, None], 0)
    return text, text_lengths, mel, mel_lengths


def encoded(model):
    """What the decoder works from: the encoder's values and their padding."""
    text, text_lengths, _, _ = toy_batch()
    padding = padding_mask(text_lengths, text.shape[1])
    return model.encoder(model.embedding(text).transpose(1, 2), padding, alone=False), padding


def texts():
    text, text_lengths, _, _ = toy_batch()
    return text, text_lengths


def gates(model: Tacotron2, seeds=SEEDS):
    """Each clip's probabilities of being at its end, up to the limit [B, T]."""
    text, text_lengths = texts()
    padding = padding_mask(text_lengths, text.shape[1])
    threshold, model.decoder.gate_threshold = model.decoder.gate_threshold, 2.0
    with torch.no_grad():
        values = model.encoder(model.embedding(text).transpose(1, 2), padding, alone=True)
        decoded, _, _ = decoding.infer(model.decoder, values, padding, seeds)
    model.decoder.gate_threshold = threshold
    return decoded.gate.sigmoid()


def stopping_toy(**changes):
    """A model whose clips stop at their own times, one of them never; and where."""
    model = toy(**changes)
    highest = gates(model).cummax(1).values
    # Between the highest gate of the clip that comes least far and those of the others.
    last = highest[:, -1].sort().values
    model.decoder.gate_threshold = ((last[0] + last[1]) / 2).item()
    fired = highest > model.decoder.gate_threshold
    lengths = torch.where(fired.any(1), fired.int().argmax(1) + 1, model.decoder.max_decoder_steps)
    return model, lengths.tolist(), fired.any(1).tolist()
