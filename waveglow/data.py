"""The segments of clips that WaveGlow learns from."""

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from common.audio import MelSpectrogram, check_wav, is_near_silent, read_wav
from common.bad_clips import BadClips
from common.corpus import first_readable
from common.read_clips import read_all
from waveglow.config import DataConfig
from waveglow.segment_mels import SegmentMels

log = logging.getLogger(__name__)

DRAWS = 10
"Positions that are tried in a clip before a near-silent segment is taken."
SEGMENTS_PER_HELD_BACK_CLIP = 4


@dataclass
class Census:
    """Counts over all clips."""

    clips: int = 0
    seconds: float = 0.0
    short: int = 0
    "Clips shorter than a segment."
    segments: int = 0
    "Consecutive segments in all clips."
    silent: int = 0
    "Near-silent ones among them."
    clipped: int = 0
    "Clips with samples beyond full scale, which are clipped."


def take_census(
    clips: list[Path], config: DataConfig, bad: BadClips | None = None, mels: SegmentMels | None = None
) -> Census:
    """Read every clip once, and its given mel. Those that cannot be used go to ``bad``; without it UserError says
    them."""
    census, found = Census(), bad or BadClips()
    for number, audio in read_all(clips, config.sampling_rate, found):
        if mels and (fault := mels.fault(clips[number], audio)):
            found.add_error(fault, clips[number])
            continue
        census.clips += 1
        census.seconds += len(audio) / config.sampling_rate
        census.short += len(audio) < config.segment_length
        census.clipped += bool(np.abs(audio).max() > 1)
        for start in range(0, max(1, len(audio) - config.segment_length + 1), config.segment_length):
            census.segments += 1
            census.silent += is_near_silent(audio[start : start + config.segment_length])
    if not bad:
        found.settle(len(clips))
    return census


def pad_and_dither(audio: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Make audio [N] of up to ``length`` samples that long, without digital silence in it.

    Where samples are missing, and all over a near-silent stretch, there is noise of one step of 16 bit.
    """
    if len(audio) == length and not is_near_silent(audio):
        return audio
    noise = rng.standard_normal(length, dtype=np.float32) / 32768
    if not is_near_silent(audio):
        noise[: len(audio)] = 0
    noise[: len(audio)] += audio
    return noise


class TrainingSegments(Dataset):
    """A random segment of a clip, looked up by (epoch, index of the clip).

    Which one depends on the seed, the epoch and the clip's name alone.
    """

    def __init__(
        self, clips: list[Path], config: DataConfig, mel: MelSpectrogram, seed: int, on_bad_clip: str = "stop"
    ):
        self.clips = clips
        self.config = config
        self.mels = SegmentMels(config, mel)
        self.seed = seed
        self.on_bad_clip = on_bad_clip

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        return first_readable(lambda i: self._segment(epoch, i), index, len(self.clips), self.on_bad_clip)

    def _segment(self, epoch: int, index: int) -> dict:
        clip = self.clips[index]
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(clip.stem.encode())])
        length, rate = self.config.segment_length, self.config.sampling_rate
        frames = check_wav(clip, rate)
        last_start = max(0, frames - length)
        for _ in range(DRAWS):
            start = int(rng.integers(last_start // self.mels.step + 1)) * self.mels.step
            audio = read_wav(clip, rate, start, length, frames)
            if not is_near_silent(audio):
                break
        return self.mels(clip, start, pad_and_dither(audio, length, rng))


class HeldBackSegments(Dataset):
    """The same segments of the held-back clips every time: the first few of each."""

    def __init__(self, clips: list[Path], config: DataConfig, mel: MelSpectrogram, on_bad_clip: str = "stop"):
        self.config = config
        self.mels = SegmentMels(config, mel)
        self.on_bad_clip = on_bad_clip
        self.places = [
            (clip, i * config.segment_length // self.mels.step * self.mels.step)
            for clip in clips
            for i in range(max(1, min(SEGMENTS_PER_HELD_BACK_CLIP, self._whole_segments(clip))))
        ]

    def _whole_segments(self, clip: Path) -> int:
        return check_wav(clip, self.config.sampling_rate) // self.config.segment_length

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict:
        return first_readable(self._segment, index, len(self), self.on_bad_clip)

    def _segment(self, index: int) -> dict:
        clip, start = self.places[index]
        audio = read_wav(clip, self.config.sampling_rate, start, self.config.segment_length)
        rng = np.random.default_rng(index)
        return self.mels(clip, start, pad_and_dither(audio, self.config.segment_length, rng))
