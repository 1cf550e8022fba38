"""Which checkpoints are deployed: those that are named, those that were fetched, or a voice's.

Nothing here loads PyTorch, so that what cannot be is said at once.
"""

import argparse
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.checkpoints import TITLES
from common.files import open_input
from common.hints import AUDIO_OPTIONS, SPEECH_OPTIONS, Hints
from common.program import UserError
from common.voices import DEFAULT, FOLDER, MODELS, Settings, checkpoint_of, find_voice

log = logging.getLogger(__name__)

RANDOM = "random weights"
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
    cleaners: list[str] = field(default_factory=list)
    "How the voice reads texts, if not as in its training."
    options: list[str] = field(default_factory=list)
    "The checkpoints and what the user says of them as options, for a command in a message."


def is_named(args: argparse.Namespace) -> bool:
    """Whether the user says which checkpoints to deploy."""
    return bool(args.tacotron2 or args.waveglow or args.voice or args.random)


def find_checkpoints(args: argparse.Namespace) -> Wanted:
    """Those of ``options.add_checkpoint_options``, else those fetched to the models_dir, else the default voice's.

    UserError for a voice or a file that does not exist, or for one checkpoint without the other.
    """
    if args.random:
        return Wanted(dict.fromkeys(MODELS, RANDOM), named=True, options=["--random"])
    given = {kind: checkpoint_of(getattr(args, kind)) for kind in MODELS if getattr(args, kind)}
    there = downloaded(args.models_dir)
    settings, options = Settings(), []
    if args.voice or (not given and not there):
        voice = find_voice(args.voice or "")
        options = [f"--voice={voice.name}"]
        settings, there = voice.settings, {kind: getattr(voice, kind) for kind in MODELS}
        if not args.voice:
            log.info("no checkpoint is named or fetched: the voice %s", voice.name)
    paths = {kind: os.path.realpath(path) for kind, path in (there | given).items()}
    for kind in MODELS:
        if kind not in paths:
            raise UserError(
                f"there is no checkpoint of {TITLES[kind]}: name one, --{kind}=FILE or --{kind}={DEFAULT}/{kind}"
            )
    for kind, path in paths.items():
        check_readable(path, kind)
    paths = {kind: paths[kind] for kind in MODELS}
    options += naming({kind: paths[kind] for kind in given} if options else paths) + hint_options(args)
    hints = read_hints(args)
    own = "tacotron2" in given or "text_cleaners" in hints.get("data_config", {})
    cleaners = [] if own else settings.text_cleaners
    return Wanted(paths, is_named(args), settings.sigma, hints, cleaners, options)


def naming(paths: Mapping[str, str]) -> list[str]:
    """The options that name these checkpoints."""
    return [f"--{kind}={path}" for kind, path in paths.items()]


def check_readable(path: str, kind: str) -> None:
    """UserError for what is no file with something in it."""
    try:
        with open_input(path) as file:
            empty = not file.read(1)
    except OSError as error:
        raise UserError(f"--{kind}: cannot read the checkpoint {path}: {error.strerror}") from error
    if empty:
        raise UserError(f"--{kind}: the checkpoint {path} is empty")


def read_hints(args: argparse.Namespace) -> Hints:
    """What the options say of either checkpoint. UserError as ``hints.read_hints``."""
    if not hint_options(args):
        return {}
    from tools.sound import hints_for_both  # loads PyTorch, whose models know what can be said

    return hints_for_both(args)


def hint_options(args: argparse.Namespace) -> list[str]:
    """The options that say something of a checkpoint, as they were given; files by their whole path."""
    names = ("config", *AUDIO_OPTIONS, *SPEECH_OPTIONS)
    given = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    files = {name: os.path.abspath(given[name]) for name in ("config", "symbols") if name in given}
    return [f"--{name}={value}" for name, value in (given | files).items()]


def downloaded(models_dir: Path) -> dict[str, Path]:
    """NVIDIA's checkpoints, as far as they are in the folder or in its checkpoints/."""
    places = (models_dir / "checkpoints", models_dir)
    return {
        kind: place / name for kind, name in DOWNLOADED.items() for place in places[::-1] if (place / name).is_file()
    }


def is_of_a_voice(path: str) -> bool:
    """Whether a checkpoint is one of those that come with the repository."""
    return Path(path).is_relative_to(FOLDER)
