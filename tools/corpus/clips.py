"""Clips, from text to samples, by several processes.

Nothing here loads PyTorch, which takes seconds and hundreds of megabytes in each process.
"""

import math
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeAlias

import numpy as np
from scipy.signal import resample_poly

from common.processes import in_processes
from common.program import StopSignal, UserError
from tools.corpus.engines import Engine, Speak

RATE = 22050
SHORTEST, LONGEST = 0.3, 15.0
"Seconds of a clip."
FASTEST = 40
"Characters a second, more than anyone speaks: a text beyond that is known to be too long without speaking it."
SILENT = 0.01
"A clip whose peak is below this is silent."

ClipOrReason: TypeAlias = np.ndarray | str
"Samples [N] as float32 in -1..1 at ``RATE``, or why there are none."


def make_clip(speak: Speak, text: str, number: int, seed: int, noise_floor: float) -> ClipOrReason:
    """Speak a text. Number and seed determine everything random; the noise floor is an RMS in dB of full scale."""
    if not any(character.isalpha() for character in text):
        return "without anything to speak"
    too_long = f"longer than {LONGEST:g} s"
    if len(text) > FASTEST * LONGEST:
        return too_long
    audio, rate = speak(text, seed + number - 1)
    divisor = math.gcd(RATE, rate)
    audio = resample_poly(audio, RATE // divisor, rate // divisor)
    if len(audio) < SHORTEST * RATE:
        return f"shorter than {SHORTEST:g} s"
    if len(audio) > LONGEST * RATE:
        return too_long
    if not np.isfinite(audio).all():
        return "not finite"
    if np.abs(audio).max() < SILENT:
        return "silent"
    noise = np.random.default_rng([seed, number]).standard_normal(len(audio))
    audio = audio + 10 ** (noise_floor / 20) * noise
    return (audio / max(1.0, np.abs(audio).max())).astype(np.float32)


def make_clips(
    engine: Engine, lines: list[tuple[int, str]], seed: int, noise_floor: float, jobs: int, stop: StopSignal
) -> Generator[ClipOrReason, None, None]:
    """The clips of numbered lines in their order, by ``jobs`` processes; ends early when ``stop`` is requested.

    UserError if the engine fails, or a process is killed.
    """
    return in_processes(partial(_load, engine, seed, noise_floor), lines, jobs, stop)


def _load(engine: Engine, seed: int, noise_floor: float) -> Callable[[tuple[int, str]], ClipOrReason]:
    speak = engine.load()

    def make(line: tuple[int, str]) -> ClipOrReason:
        number, text = line
        try:
            return make_clip(speak, text, number, seed, noise_floor)
        except UserError as error:
            raise UserError(f"line {number}: {error}") from error

    return make
