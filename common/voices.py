"""The voices that come with the repository, and those that users add.

A voice is a folder of voices/: ``tacotron2.safetensors`` and ``waveglow.safetensors``, whose hashes are checked before
they are used; ``voice.json`` (``Settings``); and ``README.md``, the model card.
"""

import hashlib
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from common.config_reading import load_config
from common.files import open_input
from common.program import UserError

FOLDER = Path(__file__).resolve().parents[1] / "voices"
DEFAULT = "heart"
MODELS = ("tacotron2", "waveglow")


@dataclass
class Settings:
    """The contents of voice.json."""

    sha256: dict = field(default_factory=dict)
    "SHA-256 of each weight file, by the name of the model."
    sigma: float = 0.6
    "Scale of WaveGlow's noise with which it sounds best."
    denoiser_strength: float = 0.0
    "Strength of the denoiser with which it sounds best."
    text_cleaners: list = field(default_factory=list)
    "Cleaners for the texts that it speaks; empty: those of its training."


@dataclass(frozen=True)
class Voice:
    """A voice whose files are present and undamaged."""

    name: str
    tacotron2: Path
    waveglow: Path
    settings: Settings


def find_voice(name: str = "") -> Voice:
    """The voice of this name, by default ``heart``.

    UserError if there is none, with the names of those that are, or if a file of it is missing or is not the one that
    was shipped.
    """
    folder = FOLDER / (name or DEFAULT)
    # A name and not a path: nothing outside of voices/ is a voice.
    if folder.parent != FOLDER or not (folder / "voice.json").is_file():
        there_are = f"choose from {', '.join(names())}" if names() else "there is none yet, see docs/voice.md"
        raise UserError(f"no checkpoint is named, and there is no voice {folder.name!r}: {there_are}")
    settings = load_config(folder / "voice.json", Settings)
    paths = {model: folder / f"{model}.safetensors" for model in MODELS}
    for model, path in paths.items():
        if sha256(path) != settings.sha256.get(model):
            again = shlex.join(["git", "-C", str(folder), "checkout", path.name])
            raise UserError(f"{path} is not the file of voice {folder.name}: fetch it again ({again})")
    return Voice(folder.name, **paths, settings=settings)


def names() -> list[str]:
    """Names of all voices."""
    return sorted(path.parent.name for path in FOLDER.glob("*/voice.json"))


def checkpoint_of(text: str) -> str | Path:
    """A checkpoint's path; if ``text`` is ``<voice>/<model>`` and not a file, that of the voice's model."""
    name, _, model = str(text).partition("/")
    if os.path.exists(text) or model not in MODELS or name not in names():
        return text
    return getattr(find_voice(name), model)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits. UserError if it cannot be read, or is no file."""
    try:
        with open_input(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
