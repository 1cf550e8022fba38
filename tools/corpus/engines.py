"""The engines that speak a corpus."""

import importlib.metadata
import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import soundfile

from common.program import UserError

Speak: TypeAlias = Callable[[str, int], tuple[np.ndarray, int]]
"Text and seed -> samples [N] as float32 and their rate in Hz. UserError if the engine fails."

LIMIT = 60
"Seconds a program may take for a clip."


@dataclass(frozen=True)
class Engine:
    """An engine and its voice; not loaded yet, so that it can be sent to a worker."""

    name: str
    version: str
    voice: str
    licence: str
    load_voice: Callable[[str], Speak]

    def load(self) -> Speak:
        return self.load_voice(self.voice)


def find_hibari(voice: str) -> Engine:
    """The PyPI package hibari-tts. The same seed gives the same speech."""
    try:
        version = importlib.metadata.version("hibari-tts")
        from hibari.voices import VOICES
    except ImportError as error:
        raise UserError("--engine=hibari is not installed: pip install -r requirement-corpus.txt") from error
    voice = voice or "heart"
    _check_voice(voice, VOICES)
    return Engine("hibari", version, voice, "Apache-2.0, program and voice", _load_hibari)


def _load_hibari(voice: str) -> Speak:
    from hibari import SAMPLE_RATE, Hibari

    try:
        hibari = Hibari(voice=voice, threads=1)
    except RuntimeError as error:  # all voices but the default one are downloaded
        raise UserError(str(error)) from error
    return lambda text, seed: (hibari(text, seed=seed), SAMPLE_RATE)


def find_espeak_ng(voice: str) -> Engine:
    """eSpeak NG, a formant synthesizer. It takes no seed: there is nothing random in it."""
    version = _version_of_program("espeak-ng")
    return Engine("espeak-ng", version, voice or "en-us", "GPL-3.0-or-later, the program", _load_espeak_ng)


def _load_espeak_ng(voice: str) -> Speak:
    return lambda text, seed: _spoken(["espeak-ng", "-v", voice, "--stdin", "--stdout"], text)


def find_flite(voice: str) -> Engine:
    """CMU Flite. It takes no seed: there is nothing random in it."""
    version = _version_of_program("flite")
    voice = voice or "slt"
    # Flite itself would speak with another voice without saying so.
    listed = subprocess.run(["flite", "-lv"], capture_output=True, text=True, timeout=LIMIT).stdout
    _check_voice(voice, listed.rpartition(":")[2].split())
    return Engine("flite", version, voice, "Flite's own, as BSD, program and voices", _load_flite)


def _load_flite(voice: str) -> Speak:
    return lambda text, seed: _spoken(["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"])


ENGINES = {"hibari": find_hibari, "espeak-ng": find_espeak_ng, "flite": find_flite}
"By the name of --engine: voice, or an empty string for the default one -> Engine. UserError if it is not there."


def _check_voice(voice: str, voices: Iterable[str]) -> None:
    if voice not in voices:
        raise UserError(f"there is no --voice={voice}; choose from {', '.join(voices)}")


def _version_of_program(name: str) -> str:
    if not shutil.which(name):
        raise UserError(f"--engine={name} is not installed: apt-get install {name}")
    # Flite tells its version and ends with 1.
    said = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=LIMIT).stdout
    return next(iter(re.findall(r"[0-9]+\.[0-9][0-9.]*", said)), "unknown")


def _spoken(command: list[str], text: str = "") -> tuple[np.ndarray, int]:
    """Samples and rate of the wav that a program writes to its standard output."""
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=LIMIT)
        if done.returncode:
            raise UserError(f"{command[0]} failed with code {done.returncode}: {done.stderr.decode(errors='replace')}")
        return soundfile.read(io.BytesIO(done.stdout), dtype="float32")
    except (OSError, subprocess.TimeoutExpired, soundfile.SoundFileError) as error:
        raise UserError(f"{command[0]} failed: {error}") from error
