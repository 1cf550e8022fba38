"""Clips of a corpus in LJ Speech's layout, and the segments WaveGlow learns from."""

import itertools
import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from common.audio import MelSpectrogram, check_wav, read_wav
from common.log import progress
from common.program import UserError
from waveglow.config import DataConfig

log = logging.getLogger("train")

# A stretch below this root mean square (-80 dB, 3 steps of 16 bit) is no speech and no room noise
# but digital silence: the likelihood of a constant has no upper bound, and training on it ends in NaN.
NEAR_SILENT_RMS = 1e-4
DRAWS = 10
"Positions that are tried in a clip before a near-silent segment is taken."
SEGMENTS_PER_HELD_BACK_CLIP = 4


def find_clips(data_path: str, training_files: str = "") -> list[Path]:
    """The wavs of ``<data_path>/wavs`` in the order of their names, or those that a file lists.

    UserError if there are none, or if a line of ``metadata.csv`` has no wav.
    """
    if not data_path:
        return _listed_clips(training_files)
    root = Path(data_path)
    if not root.is_dir():
        raise UserError(f"data_path {root} is no folder")
    if not (root / "wavs").is_dir():
        raise UserError(f"data_path {root} has no folder wavs/ in it (LJ Speech's layout: wavs/*.wav, metadata.csv)")
    clips = sorted((root / "wavs").glob("*.wav"))
    if not clips:
        raise UserError(f"{root / 'wavs'} holds no .wav file")
    if (root / "metadata.csv").is_file():
        _check_transcripts(root / "metadata.csv", {clip.stem for clip in clips})
    return clips


def _listed_clips(path: str) -> list[Path]:
    if not path:
        raise UserError("no data: give --data_path=DIR with wavs/*.wav in it")
    return [Path(line.strip()) for line in _read_lines(Path(path)) if line.strip()]


def _check_transcripts(path: Path, clips: set[str]) -> None:
    for number, line in enumerate(_read_lines(path), start=1):
        name = line.split("|", 1)[0].strip()
        if line.strip() and name not in clips:
            raise UserError(f"{path} line {number}: there is no wavs/{name[:100]}.wav")


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def split_clips(clips: list[Path]) -> tuple[list[Path], list[Path]]:
    """Training clips and held-back clips.

    Of the clips in the order of their names the first tenth is held back, at least 1 and at most
    10; of LJ Speech the first ten, as in the seed.
    """
    if len(clips) < 2:
        raise UserError("at least 2 clips are needed, one to train on and one to hold back")
    held_back = min(10, max(1, len(clips) // 10))
    return clips[held_back:], clips[:held_back]


@dataclass
class Census:
    """What a look at every clip found."""

    clips: int = 0
    seconds: float = 0.0
    short: int = 0
    "Clips shorter than a segment."
    segments: int = 0
    "Consecutive segments in all clips."
    silent: int = 0
    "Near-silent ones among them."


def take_census(clips: list[Path], config: DataConfig) -> Census:
    """Read every clip once. UserError that names the first clips that cannot be used."""
    census, errors = Census(), []

    def look(clip: Path) -> np.ndarray | UserError:
        try:
            return read_wav(clip, config.sampling_rate)
        except UserError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        for audio in progress(pool.map(look, clips), "checking clips", len(clips)):
            if isinstance(audio, UserError):
                errors.append(str(audio))
                continue
            census.clips += 1
            census.seconds += len(audio) / config.sampling_rate
            census.short += len(audio) < config.segment_length
            for start in range(0, max(1, len(audio) - config.segment_length + 1), config.segment_length):
                census.segments += 1
                census.silent += is_near_silent(audio[start : start + config.segment_length])
    if errors:
        raise UserError(
            f"{len(errors)} of {len(clips)} clips cannot be used: "
            + "; ".join(errors[:3])
            + ("; ..." if len(errors) > 3 else "")
        )
    return census


def is_near_silent(audio: np.ndarray) -> bool:
    return float(np.sqrt(np.mean(np.square(audio)))) < NEAR_SILENT_RMS


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

    def __init__(self, clips: list[Path], config: DataConfig, mel: MelSpectrogram, seed: int):
        self.clips = clips
        self.config = config
        self.mel = mel
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        clip = self.clips[index]
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(clip.stem.encode())])
        length, rate = self.config.segment_length, self.config.sampling_rate
        last_start = max(0, check_wav(clip, rate) - length)
        for _ in range(DRAWS):
            audio = read_wav(clip, rate, int(rng.integers(last_start + 1)), length)
            if not is_near_silent(audio):
                break
        return segment(clip.name, pad_and_dither(audio, length, rng), self.mel)


class HeldBackSegments(Dataset):
    """The same segments of the held-back clips every time: the first few of each."""

    def __init__(self, clips: list[Path], config: DataConfig, mel: MelSpectrogram):
        self.config = config
        self.mel = mel
        self.places = [
            (clip, i * config.segment_length)
            for clip in clips
            for i in range(max(1, min(SEGMENTS_PER_HELD_BACK_CLIP, self._whole_segments(clip))))
        ]

    def _whole_segments(self, clip: Path) -> int:
        return check_wav(clip, self.config.sampling_rate) // self.config.segment_length

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict:
        clip, start = self.places[index]
        audio = read_wav(clip, self.config.sampling_rate, start, self.config.segment_length)
        rng = np.random.default_rng(index)
        return segment(clip.name, pad_and_dither(audio, self.config.segment_length, rng), self.mel)


def segment(name: str, audio: np.ndarray, mel: MelSpectrogram) -> dict:
    """What a batch is made of: name, audio [N], mel [n_mel, T]."""
    audio = torch.from_numpy(audio)
    return {"names": name, "audio": audio, "mel": mel(audio[None])[0]}


class ShuffledClips(Sampler):
    """The (epoch, clip) of each batch of one process, without end.

    An epoch's order is drawn from seed and epoch. All processes together take the clips in that
    order, a step's worth at a time, so the clips of a step do not depend on how many processes
    share them. What is left at an epoch's end and makes no step is dropped.
    """

    def __init__(self, clips: int, batch_size: int, accumulation: int, rank: int, world_size: int, seed: int):
        self.clips = clips
        self.batch_size = batch_size
        self.share = batch_size * accumulation
        self.clips_per_step = self.share * world_size
        self.rank = rank
        self.seed = seed
        self.epoch = 0
        self.first = 0

    def start_at(self, epoch: int, clips: int) -> None:
        """Begin in this epoch, after so many clips of it."""
        self.epoch, self.first = epoch, clips

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.first
        for epoch in itertools.count(self.epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.clips)
            for i in range(first, self.clips - self.clips_per_step + 1, self.clips_per_step):
                yield from self._own_batches(epoch, order[i : i + self.clips_per_step])
            first = 0

    def _own_batches(self, epoch: int, clips: np.ndarray) -> Iterator[list[tuple[int, int]]]:
        """Of the clips of a step: this process's share, batch by batch."""
        own = clips[self.rank * self.share : (self.rank + 1) * self.share]
        for i in range(0, self.share, self.batch_size):
            yield [(epoch, int(clip)) for clip in own[i : i + self.batch_size]]
