"""Toy models that speak, in checkpoint files, and tools/synthesize.py by them in the test's process."""

import sys

import torch

import tacotron2.config
import waveglow.config
from common.checkpoints import native
from common.config_reading import from_dict
from conftest import toy_config, toy_tacotron2_config
from tacotron2.model import Utterance
from tools import synthesize

TEXTS = ["Hello there.", "A longer sentence, this one.", "Go!", "Numbers: 12 and 3.5.", "{HH AH0 L OW1} Dr. Who", "Go!"]
FRAMES = 15
"Of each piece, since the gate of the toy never fires."


def make_checkpoint(path, config):
    """A checkpoint of a model with lively output, whose gate never fires."""
    torch.manual_seed(0)
    model = tacotron2.config.build_model(from_dict(tacotron2.config.Config, config))
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.ndim > 1:
                parameter *= 3
        model.decoder.gate_layer.linear_layer.bias -= 1000
    progress = {"losses": [2.0, 1.0], "validation_losses": [(2, 1.5)], "iteration": 2}
    native.save(path, {"model": model.state_dict(), "config": config, "iteration": 2, "progress": progress})
    return path


def utterance(stopped=True, diagonality=0.9, coverage=0.9, length=4):
    return Utterance(
        torch.zeros(6, length), length, stopped, torch.zeros(length, 3), torch.zeros(length), diagonality, coverage
    )


def make_models(folder, tacotron2_data=(), waveglow_data=()):
    """Two checkpoints; further settings for their data_config."""
    config = toy_tacotron2_config() | {"data_config": dict(tacotron2_data)}
    config["tacotron2_config"]["max_decoder_steps"] = FRAMES
    make_checkpoint(folder / "tacotron2_2", config)
    config = toy_config()
    config["data_config"] |= dict(waveglow_data)
    torch.manual_seed(0)
    model = waveglow.config.build_model(from_dict(waveglow.config.Config, config))
    state = {"model": model.state_dict(), "config": config, "iteration": 3}
    native.save(folder / "waveglow_3", state | {"progress": {"iteration": 3}})
    return [f"--tacotron2={folder / 'tacotron2_2'}", f"--waveglow={folder / 'waveglow_3'}"]


def run_synthesize(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["synthesize", "--device=cpu", *map(str, options)])
    # As quiet as in a terminal: what is logged is looked at through caplog.
    monkeypatch.setattr(synthesize, "open_log", lambda *args, **kwargs: None)
    synthesize.main()
