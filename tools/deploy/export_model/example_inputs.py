"""Inputs that fit a graph, for tracing it and for comparing it with its model."""

import torch
from torch import Tensor

from tacotron2.decoder import Decoder
from tacotron2.model import padding_mask
from tools.deploy.graphs import draw_masks
from tools.deploy.signatures import Signature


def example_inputs(signature: Signature, batch: int, length: int) -> dict[str, Tensor]:
    """Random inputs, the same for the same sizes, with the shapes of the signature; the clips of a batch have lengths
    from ``length`` down."""
    generator = torch.Generator().manual_seed(1000 * batch + length)
    lengths = (length - torch.arange(batch)).clamp(min=1)
    special = {
        "sequence_lengths": lengths,
        "mel_lengths": lengths,
        "mask": padding_mask(lengths, length),
        "max_decoder_steps": lengths,
    }
    inputs = {}
    for name, port in signature.inputs.items():
        shape = port.shape(dict(batch=batch, text=length, mel=length, steps=length))
        if name in special:
            inputs[name] = special[name].to(getattr(torch, port.dtype))
        elif name == "sequences":
            inputs[name] = torch.randint(0, 2, shape, generator=generator)  # of two symbols, which every alphabet has
        elif name == "prenet_masks":
            inputs[name] = 2.0 * torch.randint(0, 2, shape, generator=generator)
        else:
            inputs[name] = torch.randn(shape, generator=generator)
    return inputs


def loop_inputs(decoder: Decoder, signature: Signature, batch: int, length: int) -> dict[str, Tensor]:
    """Inputs with which the graph ``decoder`` gives the same as ``DecoderGraph``, which makes its keys itself."""
    inputs = example_inputs(signature, batch, length)
    inputs["processed_memory"] = decoder.attention_layer.memory_layer(inputs["memory"])
    inputs["prenet_masks"] = draw_masks(decoder.prenet, list(range(batch)), length)
    return inputs
