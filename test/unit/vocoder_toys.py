"""A WaveGlow of toy size in which far places count, in a checkpoint file, and a mel spectrogram for it."""

import torch

from common.checkpoints import native
from common.config_reading import from_dict
from conftest import toy_config
from waveglow.config import Config, build_model


def make_checkpoint(path, data_config, waveglow_config):
    config = toy_config()
    config["data_config"] |= data_config
    config["waveglow_config"] |= waveglow_config
    torch.manual_seed(0)
    model = build_model(from_dict(Config, config))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.1)
        torch.nn.init.normal_(wn.end.bias, std=0.1)
        for layer in wn.in_layers:
            layer.weight_g.data *= 2
    state = {"model": model.state_dict(), "config": config, "iteration": 3, "progress": {"iteration": 3}}
    native.save(path, state)
    return path


def mel(frames: int) -> torch.Tensor:
    return torch.randn(6, frames, generator=torch.Generator().manual_seed(1))
