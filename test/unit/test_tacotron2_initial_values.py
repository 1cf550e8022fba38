"""A fresh Tacotron2 begins with the weights that NVIDIA's begins with, but for the frames' bias."""

import math

import pytest
import torch
from tacotron2_toys import toy_batch
from torch import nn

from conftest import toy_tacotron2_config
from tacotron2.config import Config, Tacotron2Config, build_model

TANH, RELU = 5 / 3, math.sqrt(2)
GAINS = {
    **{f"encoder.convolutions.{i}.0.conv": RELU for i in range(3)},
    **{f"postnet.convolutions.{i}.0.conv": TANH for i in range(4)},
    "postnet.convolutions.4.0.conv": 1,
    "decoder.prenet.layers.0.linear_layer": 1,
    "decoder.prenet.layers.1.linear_layer": 1,
    "decoder.attention_layer.query_layer.linear_layer": TANH,
    "decoder.attention_layer.memory_layer.linear_layer": TANH,
    "decoder.attention_layer.v.linear_layer": 1,
    "decoder.attention_layer.location_layer.location_conv.conv": 1,
    "decoder.attention_layer.location_layer.location_dense.linear_layer": TANH,
    "decoder.linear_projection.linear_layer": 1,
    "decoder.gate_layer.linear_layer": 1,
}
"Of Glorot's uniform initialization (Glorot & Bengio 2010)."


def fresh():
    """Wide enough that the largest of a layer's weights comes near to its bound."""
    torch.manual_seed(0)
    sizes = toy_tacotron2_config()["tacotron2_config"] | {"attention_dim": 64}
    return build_model(Config(tacotron2_config=Tacotron2Config(**sizes)))


def assert_uniform(weight, bound):
    assert 0.93 * bound < weight.abs().max() <= bound
    assert weight.square().mean().sqrt() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_every_linear_layer_and_convolution_begins_as_glorots():
    weights = {name: w for name, w in fresh().state_dict().items() if name.endswith(".weight") and w.ndim > 1}
    layers = {name.removesuffix(".weight"): w for name, w in weights.items() if name != "embedding.weight"}
    assert layers.keys() == GAINS.keys()
    for name, weight in layers.items():
        taps = weight[0, 0].numel()
        assert_uniform(weight, GAINS[name] * math.sqrt(6 / (taps * sum(weight.shape[:2]))))


def test_symbols_begin_as_glorots():
    weight = fresh().embedding.weight.detach()
    assert_uniform(weight, math.sqrt(6 / sum(weight.shape)))


def test_recurrences_and_statistics_begin_as_torchs():
    for module in fresh().modules():
        if isinstance(module, nn.LSTM | nn.LSTMCell):
            for parameter in module.parameters():
                assert 0.8 < parameter.detach().abs().max() * math.sqrt(module.hidden_size) <= 1
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert (module.running_mean == 0).all() and (module.running_var == 1).all()
            assert (module.eps, module.momentum) == (1e-5, 0.1)


@torch.no_grad()
def test_frames_begin_at_the_mean_of_speech():
    """ln of amplitudes is about -5 in a recording; from 0 on Adam takes thousands of steps to there."""
    mel = fresh().eval()(*toy_batch())[0]
    assert mel[1].mean().item() == pytest.approx(-5.25, abs=0.5)
