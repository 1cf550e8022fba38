"""The two models that are deployed: from checkpoints of any form, or with random weights."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tacotron2.config
import waveglow.config
from common import inference
from common.checkpoints import TITLES
from common.hints import Hints
from common.program import UserError
from common.voices import sha256
from tacotron2.model import Tacotron2
from tools.deploy import graphs, signatures
from tools.deploy.artifacts import Source
from tools.deploy.checkpoints import RANDOM
from tools.deploy.signatures import Signature
from tools.sound import check_same_audio
from waveglow.model import WaveGlow

log = logging.getLogger(__name__)

SEED = 1234
"Seed of random weights."
FRAMES_OF_128_CHARACTERS = 600
"Frames that NVIDIA's checkpoints make of 128 characters. A random Tacotron2, whose gate never fires, ends there."
UPSAMPLING = "upsample."
"What the names of WaveGlow's weights of the upsampling begin with."
PACKAGES = {"tacotron2": tacotron2.config, "waveglow": waveglow.config}


@dataclass
class Model:
    """A Tacotron2 or WaveGlow ready for inference on the CPU."""

    kind: str
    "tacotron2 or waveglow."
    source: Source
    "Where its weights are from."
    config: Any
    "``tacotron2.config.Config`` or ``waveglow.config.Config``, as far as the checkpoint tells it."
    model: Tacotron2 | WaveGlow

    def signatures(self) -> dict[str, Signature]:
        """Inputs and outputs of its graphs."""
        if isinstance(self.model, Tacotron2):
            return signatures.tacotron2_signatures(self.config)
        return signatures.waveglow_signatures(self.config)

    def modules(self) -> dict[str, nn.Module]:
        """Modules of its graphs."""
        if isinstance(self.model, Tacotron2):
            return graphs.tacotron2_modules(self.model)
        return {"waveglow": graphs.WaveGlowGraph(self.model)}


def load(kind: str, path: str, hints: Hints | None = None) -> Model:
    """From a checkpoint of any form, or RANDOM weights at full size. UserError as ``inference.load``."""
    if path == RANDOM:
        return _random(kind)
    loaded = inference.load(path, kind, PACKAGES[kind].Config, PACKAGES[kind].build_model, hints)
    return _ready(Model(kind, Source(path, sha256(Path(path))), loaded.config, loaded.model))


def rebuild(kind: str, config: Any, weights: dict[str, Tensor]) -> Model:
    """A model from its configuration and those weights that are needed; UserError if they do not fit."""
    bare = PACKAGES[kind].build_model(config)
    # First of all the upsampling: if it interpolates, WaveGlow's layers are merged otherwise.
    upsampling = {name: tensor for name, tensor in weights.items() if name.startswith(UPSAMPLING)}
    try:
        bare.load_state_dict(upsampling, strict=False)
        model = _ready(Model(kind, Source(""), config, bare))
        model.model.load_state_dict(weights, strict=False)
        if isinstance(model.model, WaveGlow):
            for convinv in model.model.convinv:
                convinv.fuse()
    except RuntimeError as error:
        raise UserError(f"these weights of {kind} are of another version") from error
    return model


def check_fit(tacotron2: Model, waveglow: Model) -> None:
    """UserError, if the one's spectrograms are not what the other takes."""
    check_same_audio(tacotron2.config, tacotron2.source.path, waveglow.config, waveglow.source.path)


def _ready(model: Model) -> Model:
    model.model.eval().requires_grad_(False)
    if isinstance(model.model, WaveGlow):
        model.model.fuse()
    return model


def _random(kind: str) -> Model:
    """Random weights, the same each time; the model does as much work as a trained one."""
    log.warning("%s: no checkpoint, random weights at full size: to measure speed, not to listen to", TITLES[kind])
    config = PACKAGES[kind].Config()
    if kind == "tacotron2":
        config.tacotron2_config.max_decoder_steps = FRAMES_OF_128_CHARACTERS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = PACKAGES[kind].build_model(config)
        if kind == "tacotron2":
            nn.init.constant_(model.decoder.gate_layer.linear_layer.bias, -100.0)
        else:
            for wn in model.WN:  # zeros at first, with which nothing in front of it would matter
                nn.init.normal_(wn.end.weight, std=0.01)
    return _ready(Model(kind, Source(RANDOM), config, model))
