"""What is measured of a recording, and of the clip that it became."""

import hashlib
from dataclasses import dataclass

import librosa
import numpy as np

from common.audio import to_16_bit
from tools.prepare.levels import find_levels, speech_edges

FULL_SCALE = 32766.5 / 32768
"From here on a sample is at the end of the range, in 16 bits and in others."
FLAT = 3
"Equal samples in a row at the highest or lowest value, which is where something was cut off."
CONSTANT = 0.01
"Seconds without any change, which no microphone gives."
BELOW_PRINT = 1e-4
"Of the greatest power: what is below is a noise that another recording may not have."
PRINT_TIMES, PRINT_BANDS = 32, 8
"Parts of a clip and of its spectrum that a fingerprint has."


@dataclass
class Figures:
    """The figures of one clip."""

    form: str = ""
    "Format of the file."
    rate: int = 0
    "Hz, of the recording."
    channels: int = 0
    recorded_seconds: float = 0.0
    recorded_peak: float = 0.0
    clipped: int = 0
    "Samples of the recording that were cut off at the highest or lowest value."
    gain: float = 0.0
    "dB by which it was made louder."
    seconds: float = 0.0
    spoken_seconds: float = 0.0
    "From the first sound to the last."
    level: float = 0.0
    "dB of full scale, of the speech in the clip."
    noise_floor: float = 0.0
    "dB of full scale, in the clip."
    digital_silence: float = 0.0
    "Share of the clip in which nothing changes."
    silence: float = 0.0
    "Share of the clip without speech."
    longest_pause: float = 0.0
    "Seconds."
    sha256: str = ""
    "Of the samples."
    fingerprint: str = ""
    "Hexadecimal: equal sounds have nearly equal ones, whatever their format and level."


def of_recording(channels: np.ndarray, rate: int, form: str) -> Figures:
    """Figures of samples [N, C] as they were recorded."""
    peak = float(np.abs(channels).max())
    return Figures(
        form=form,
        rate=rate,
        channels=channels.shape[1],
        recorded_seconds=round(len(channels) / rate, 4),
        recorded_peak=round(peak, 4),
        clipped=max(count_clipped(channel, peak / 2) for channel in channels.T),
    )


def count_clipped(audio: np.ndarray, least: float) -> int:
    """How many samples [N] were cut off: they are at full scale, or flat at the top or the bottom of the clip, and not
    below ``least``."""
    extreme = (np.abs(audio) >= FULL_SCALE) | (audio == audio.max()) | (audio == audio.min())
    lengths = run_lengths(extreme & (np.abs(audio) > least))
    return int(lengths[lengths >= FLAT].sum())


def share_constant(audio: np.ndarray, shortest: int) -> float:
    """The share of samples [N] in stretches of at least so many that do not change."""
    lengths = run_lengths(np.diff(audio) == 0)
    return float(lengths[lengths + 1 >= shortest].sum() / len(audio))


def run_lengths(flags: np.ndarray) -> np.ndarray:
    """The lengths of the stretches of flags [N] that are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


def measure(figures: Figures, audio: np.ndarray, rate: int) -> None:
    """Fill in the figures of the clip's samples [N] in -1..1."""
    levels = find_levels(audio, rate)
    figures.seconds = round(len(audio) / rate, 4)
    figures.level = round(levels.speech, 2)
    figures.noise_floor = round(levels.floor, 2)
    figures.digital_silence = round(share_constant(audio, round(CONSTANT * rate)), 4)
    figures.silence = round(float(1 - levels.speaks.mean()), 4)
    figures.longest_pause = round(levels.longest_pause(rate), 3)
    figures.sha256 = hashlib.sha256(to_16_bit(audio).tobytes()).hexdigest()
    start, end = speech_edges(levels, len(audio), 0)
    figures.spoken_seconds = round((end - start) / rate, 4)
    figures.fingerprint = fingerprint(audio[start:end], rate)


def fingerprint(audio: np.ndarray, rate: int) -> str:
    """How the energy of samples [N] is spread over time and bands, in bytes."""
    mel = librosa.feature.melspectrogram(y=audio, sr=rate, n_fft=1024, hop_length=256, n_mels=PRINT_BANDS, fmax=4000)
    times = np.array_split(np.log(mel + BELOW_PRINT * mel.max() + 1e-10), PRINT_TIMES, axis=1)
    print_ = np.stack([part.mean(axis=1) if part.shape[1] else np.zeros(PRINT_BANDS) for part in times])
    print_ = (print_ - print_.mean(axis=0)) / max(float(print_.std()), 1e-9)
    return np.clip(np.round(print_ * 32) + 128, 0, 255).astype(np.uint8).tobytes().hex()
