"""The two models that are deployed: from checkpoints of any form, or with random weights."""

import argparse
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tacotron2.config
import waveglow.config
from common import inference
from common.checkpoints.interchange import TITLES
from common.hints import Hints
from common.program import UserError
from common.voices import DEFAULT, FOLDER, Settings, checkpoint_of, find_voice, sha256
from tacotron2.model import Tacotron2
from tools.deploy import graphs, signatures
from tools.deploy.artifacts import Source
from tools.deploy.signatures import Signature
from tools.sound import check_same_audio, hints_for_both
from waveglow.model import WaveGlow

log = logging.getLogger(__name__)

SEED = 1234
"Seed of random weights."
RANDOM = "random weights"
FRAMES_OF_128_CHARACTERS = 600
"Frames that NVIDIA's checkpoints make of 128 characters. A random Tacotron2, whose gate never fires, ends there."
PACKAGES = {"tacotron2": tacotron2.config, "waveglow": waveglow.config}
DOWNLOADED = {"tacotron2": "nvidia_tacotron2pyt_fp16_20190427", "waveglow": "nvidia_waveglow256pyt_fp16"}
"Names of NVIDIA's files, as get_datasets_and_models.sh and the README of Cambricon's sample fetch them."


@dataclass(frozen=True)
class Wanted:
    """The checkpoints to deploy."""

    paths: dict[str, str]
    "Model -> path, or RANDOM."
    named: bool
    "Whether the user has named one of them."
    sigma: float = Settings().sigma
    "Scale of WaveGlow's noise with which they sound best."
    hints: Hints = field(default_factory=dict)
    "What the user says of them."


def find_checkpoints(args: argparse.Namespace) -> Wanted:
    """Those of ``options.add_checkpoint_options``, else those fetched to the models_dir, else the default voice's.

    UserError for a voice that does not exist, or for one checkpoint without the other.
    """
    if args.random:
        return Wanted(dict.fromkeys(PACKAGES, RANDOM), named=True)
    given = {kind: checkpoint_of(getattr(args, kind)) for kind in PACKAGES if getattr(args, kind)}
    there = {} if args.voice else downloaded(args.models_dir)
    settings = Settings()
    if args.voice or (not given and not there):
        voice = find_voice(args.voice or "")
        settings, there = voice.settings, {kind: getattr(voice, kind) for kind in PACKAGES}
        if not args.voice:
            log.info("no checkpoint is named or fetched: the voice %s", voice.name)
    paths = {kind: os.path.realpath(path) for kind, path in (there | given).items()}
    for kind in PACKAGES:
        if kind not in paths:
            raise UserError(f"there is no checkpoint of {TITLES[kind]}: name one, --{kind}=FILE or {DEFAULT}/{kind}")
    named = bool(given or args.voice)
    return Wanted({kind: paths[kind] for kind in PACKAGES}, named, settings.sigma, hints_for_both(args))


def downloaded(models_dir: Path) -> dict[str, Path]:
    """NVIDIA's checkpoints, as far as they are in the folder or in its checkpoints/."""
    places = (models_dir / "checkpoints", models_dir)
    return {
        kind: place / name for kind, name in DOWNLOADED.items() for place in places[::-1] if (place / name).is_file()
    }


def is_of_a_voice(path: str) -> bool:
    """Whether a checkpoint is one of those that come with the repository."""
    return Path(path).is_relative_to(FOLDER)


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
    model = _ready(Model(kind, Source(""), config, PACKAGES[kind].build_model(config)))
    try:
        model.model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"these weights of {kind} are of another version: build the engines again") from error
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
