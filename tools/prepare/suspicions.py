"""What the clips of a data set have that speech in good recordings does not."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from tools.prepare.figures import Figures
from tools.prepare.problems import Kind, Problem

FEWEST = 20
"Clips from which on a data set has a pace of its own."
FASTEST, SLOWEST = 35.0, 3.0
"Symbols a second: beyond them nobody speaks."
SHORT = 1.0
"Seconds below which a clip is not judged as slow: it may be a single word."
FACTOR = 1.5
"A duration is not suspicious unless it is so many times the expected one, or that part of it,"
DEVIATIONS = 4.0
"and so many standard deviations away from it."
MOST_AT_EDGES = 1.0
"Seconds of a clip, whatever its text: silence that was left at its edges. Else a few wrong texts tilt the line."
CLIPPED = 10
"Samples."
NOISY = 25.0
"dB from the noise floor to the speech; below it a voice has a hiss."
PAUSE = 1.0
"Seconds."
GAIN = 20.0
"dB: what was so quiet has the noise of its quantization, too."
DIGITAL_SILENCE = 0.05
"Share of the clip."
ALIKE = 0.9
"Correlation of fingerprints; of different sentences of one voice it is 0.5 or less."
ALIKE_LENGTH = 1.05


def judge_clips(clips: Mapping[str, Figures], symbols: Mapping[str, int], sampling_rate: int) -> list[Problem]:
    """Suspicions about clips by their names; ``symbols`` has the numbers of those with a text."""
    found = judge_pace({name: clips[name].seconds for name in symbols if name in clips}, symbols)
    for name, clip in clips.items():
        add = partial(_add, found, name)
        add(Kind.CLIPPED, clip.clipped, CLIPPED, f"{clip.clipped} samples were cut off at full scale")
        distance = clip.level - clip.noise_floor
        add(Kind.NOISE, NOISY - distance, 0.0, f"the noise is only {distance:.0f} dB below the speech")
        add(Kind.PAUSE, clip.longest_pause, PAUSE, f"a pause of {clip.longest_pause:.1f} s")
        add(Kind.QUIET, clip.gain, GAIN, f"had to be made {clip.gain:.0f} dB louder")
        share = clip.digital_silence
        add(Kind.DIGITAL_SILENCE, share, DIGITAL_SILENCE, f"{share:.0%} is digital silence")
        add(Kind.BAND, sampling_rate - clip.rate, 0, f"recorded with {clip.rate} Hz: nothing above {clip.rate // 2} Hz")
    return found + find_same_audio(clips)


def _add(found: list[Problem], name: str, kind: Kind, value: float, limit: float, what: str) -> None:
    if value > limit:
        found.append(Problem(kind, f"{name}: {what}", name, value))


def judge_pace(seconds: Mapping[str, float], symbols: Mapping[str, int]) -> list[Problem]:
    """Clips that are far longer or shorter than their texts suggest."""
    names = list(seconds)
    lengths, counts = np.array([seconds[n] for n in names]), np.array([float(symbols[n]) for n in names])
    found = []
    expected, limit = expect_seconds(counts, lengths)
    for name, length, count, usual in zip(names, lengths, counts, expected):
        away = abs(np.log(length / usual)) if len(names) >= FEWEST else 0.0
        pace = count / length
        if away > limit:
            what = f"{length:.1f} s of audio, and a text of {count:.0f} symbols for about {usual:.1f} s"
        elif pace > FASTEST or (pace < SLOWEST and length > SHORT):
            what, away = f"{pace:.1f} symbols a second, which nobody speaks", abs(np.log(pace / 15)) / 10
        else:
            continue
        found.append(Problem(Kind.MISMATCH, f"{name}: {what}", name, float(away)))
    return found


def expect_seconds(symbols: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, float]:
    """Durations [N] of texts of so many symbols [N] by the straight line through most clips, and the largest usual
    distance in log.

    The line is fitted again and again without the clips that are far from it.
    """
    if len(symbols) < FEWEST:
        return seconds, 0.0
    pace = float(np.median(seconds / symbols))
    expected = pace * symbols
    for _ in range(10):
        away = np.log(seconds / expected)
        spread = 1.4826 * float(np.median(np.abs(away)))  # the standard deviation of most
        near = np.abs(away) <= max(3 * spread, 0.05)
        start = np.polyfit(symbols[near], seconds[near], 1)[1] if np.ptp(symbols[near]) else 0.0
        start = float(np.clip(start, 0, MOST_AT_EDGES))
        slope = float(np.median((seconds[near] - start) / symbols[near]))
        if slope <= 0:
            break
        expected = np.maximum(slope * symbols + start, 0.3 * pace * symbols)
    return expected, max(float(np.log(FACTOR)), DEVIATIONS * spread)


def find_same_audio(clips: Mapping[str, Figures]) -> list[Problem]:
    """Clips that sound like another one, in whatever format and level; each once."""
    names = sorted(clips, key=lambda name: (clips[name].spoken_seconds, name))
    if not names:
        return []
    lengths = np.array([clips[name].spoken_seconds for name in names])
    codes = np.stack([np.frombuffer(bytes.fromhex(clips[name].fingerprint), np.uint8) for name in names])
    prints = codes.astype(np.float32) - 128
    prints /= np.maximum(np.linalg.norm(prints, axis=1, keepdims=True), 1e-9)
    found: dict[str, Problem] = {}
    for place, name in enumerate(names):
        end = int(np.searchsorted(lengths, lengths[place] * ALIKE_LENGTH, side="right"))
        alike = prints[place + 1 : end] @ prints[place]
        for other in np.flatnonzero(alike > ALIKE):
            first, second = sorted((name, names[place + 1 + int(other)]))
            if second not in found:
                verb = "is" if clips[first].sha256 == clips[second].sha256 else "sounds like"
                what = f"{second}: {verb} the audio of {first}"
                found[second] = Problem(Kind.SAME_AUDIO, what, second, float(alike[other]))
    return list(found.values())
