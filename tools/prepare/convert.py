"""A recording of any kind becomes a clip for training."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from common.audio import LOUDEST, ClipError, Fault, check_whole, is_near_silent, look_at, sound_of, to_16_bit
from tools.prepare import figures
from tools.prepare.levels import find_levels, speech_edges

LONGEST_READ = 600.0
"Seconds: what is longer is a whole chapter, and not read at all."
HIGHEST_PEAK = 0.95
"A clip is not made so loud that its peak is above this."
QUIET_CHANNEL = 0.1
"Share of the loudest channel's level below which a channel holds no speech of its own."
AGAINST = -0.5
"Correlation of two channels below which their mean would cancel."
LEAST_TRIMMED = 0.05
"Seconds: less is not worth a cut."
LEAST_GAIN = 0.1
"dB: nobody hears less."
DC = 1e-4
"A mean below this, 3 steps of 16 bit, is left as it is."


@dataclass(frozen=True)
class Recipe:
    """What is made of recordings."""

    sampling_rate: int = 22050
    level: float | None = -20.0
    "Of the speech, in dB of full scale (root mean square); None: as it is. LJ Speech's is -19.5."
    margin: float | None = 0.1
    "Seconds of silence that stay at the edges; None: all."
    shortest: float = 0.5
    longest: float = 15.0
    "Seconds."


@dataclass
class ConvertedClip:
    """What became of a recording."""

    figures: figures.Figures
    steps: list[str] = field(default_factory=list)
    "What was done to it."


def convert(path: Path, recipe: Recipe) -> tuple[np.ndarray, ConvertedClip]:
    """The clip as samples [N] in -1..1 at the rate of the recipe. ClipError for what cannot be a clip."""
    channels, rate, kind = read_recording(path)
    clip = ConvertedClip(figures.of_recording(channels, rate, kind))
    audio = to_one_channel(channels, clip.steps)
    mean = float(audio.mean())
    if abs(mean) > DC:
        audio = audio - mean
        clip.steps.append(f"DC {mean:+.4f} removed")
    if is_near_silent(audio):
        raise ClipError(f"{path} is silent", Fault.SILENT)
    if rate != recipe.sampling_rate:
        audio = soxr.resample(audio, rate, recipe.sampling_rate, quality="VHQ")
        clip.steps.append(f"resampled from {rate} Hz")
    audio = trim(audio, recipe, clip.steps)
    seconds = len(audio) / recipe.sampling_rate
    if not recipe.shortest <= seconds <= recipe.longest:
        beyond = f"shorter than {recipe.shortest:g}" if seconds < recipe.shortest else f"longer than {recipe.longest:g}"
        raise ClipError(f"{path} has {seconds:.2f} s of speech, {beyond} s", Fault.SHORT)
    audio = to_level(audio, recipe, clip)
    figures.measure(clip.figures, to_16_bit(audio) / np.float32(32768), recipe.sampling_rate)
    return audio, clip


def read_recording(path: Path) -> tuple[np.ndarray, int, str]:
    """Samples [N, C] as float32, their rate, and the format. ClipError if it cannot be read, or is far too long.

    Integers in a floating-point file are brought to -1..1.
    """
    info = look_at(path)
    seconds = info.frames / info.samplerate
    if seconds > LONGEST_READ:
        raise ClipError(f"{path} lasts {seconds / 60:.0f} minutes: cut it into sentences", Fault.SHORT)
    try:
        channels, rate = soundfile.read(sound_of(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ClipError(f"{path} is not readable as audio: {str(error).rpartition(': ')[2]}") from error
    check_whole(path, channels, info.frames)
    if np.abs(channels).max() > LOUDEST:
        channels = channels / 32768
    return channels, rate, f"{info.format} {info.subtype}"


def to_one_channel(channels: np.ndarray, steps: list[str]) -> np.ndarray:
    """Samples [N, C] -> [N]: the mean of the channels, or the loudest one where others are silent or cancel it."""
    count = channels.shape[1]
    if count == 1:
        return channels[:, 0]
    strength = np.sqrt(np.mean(np.square(channels), axis=0))
    loudest = int(strength.argmax())
    speaking = strength >= QUIET_CHANNEL * strength[loudest]  # all of them, if all are silent
    if speaking.sum() == 1:
        steps.append(f"channel {loudest + 1} of {count}, the others are quiet")
        return channels[:, loudest]
    used = channels[:, speaking]
    alike = np.mean(used * channels[:, [loudest]], axis=0) / np.maximum(strength[speaking] * strength[loudest], 1e-12)
    if alike.min() < AGAINST:
        steps.append(f"channel {loudest + 1} of {count}, which another one cancels")
        return channels[:, loudest]
    steps.append(f"{speaking.sum()} of {count} channels mixed" if speaking.sum() < count else f"{count} channels mixed")
    return used.mean(axis=1)


def trim(audio: np.ndarray, recipe: Recipe, steps: list[str]) -> np.ndarray:
    """Samples [N] without the silence at the edges, but for the margin."""
    if recipe.margin is None:
        return audio
    rate = recipe.sampling_rate
    start, end = speech_edges(find_levels(audio, rate), len(audio), round(recipe.margin * rate))
    if start + len(audio) - end < LEAST_TRIMMED * rate:
        return audio
    steps.append(f"{start / rate:.2f} s trimmed before and {(len(audio) - end) / rate:.2f} s behind")
    return audio[start:end]


def to_level(audio: np.ndarray, recipe: Recipe, clip: ConvertedClip) -> np.ndarray:
    """Samples [N] at the level of the recipe, or as near to it as their peak allows."""
    peak = float(np.abs(audio).max())
    wanted = 0.0 if recipe.level is None else recipe.level - find_levels(audio, recipe.sampling_rate).speech
    allowed = float(20 * np.log10(HIGHEST_PEAK / peak))
    # If the level is kept, only what is beyond full scale must become quieter.
    gain = min(wanted, allowed) if recipe.level is not None or peak > 1 else 0.0
    if abs(gain) < LEAST_GAIN:
        return audio
    clip.figures.gain = round(gain, 2)
    clip.steps.append(f"{gain:+.1f} dB" + ", limited by its peak" * (gain < wanted))
    return audio * np.float32(10 ** (gain / 20))
