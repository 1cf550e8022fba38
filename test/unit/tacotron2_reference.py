"""The numbers of NVIDIA/tacotron2 at toy size, and our model with its weights."""

from functools import cache

import torch

from conftest import ROOT
from tacotron2.model import Tacotron2

INPUTS = ("text", "text_lengths", "mel", "mel_lengths")
OUTPUTS = ("mel", "mel_postnet", "gate", "alignments")


@cache
def reference():
    """Inputs, weights and outputs of NVIDIA/tacotron2 at toy size."""
    return torch.load(ROOT / "test/data/reference/tacotron2.pt", weights_only=True)


def reference_model():
    """The reference's weights, without dropout in the prenet."""
    model = Tacotron2(**reference()["config"], p_prenet_dropout=0.0)
    model.load_state_dict(reference()["state_dict"], strict=True)
    return model.eval()


def inputs():
    return {name: reference()["inputs"][name] for name in INPUTS}
