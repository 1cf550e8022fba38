"""A corpus in a card's memory, and the batches of both models from there.

Shapes: B clips, N samples or text symbols, T mel frames.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tacotron2.config
import waveglow.config
from common.audio import read_wav, to_16_bit
from common.device import Device
from common.log import with_progress
from common.program import UserError
from tacotron2.data import dictionary_of, find_utterances
from tacotron2.text import text_to_sequence

log = logging.getLogger(__name__)

READERS = 16
"Threads that read wavs."
ROUND_FRAMES = 16
"The frames of a batch are padded to a multiple of this."

Batch = dict[str, Tensor]


@dataclass
class Corpus:
    """All training clips of a corpus, one after the other."""

    audio: Tensor
    "[N of all clips] int16, on the device."
    lengths: np.ndarray
    "Samples of each clip."
    texts: list[str]

    def starts(self) -> np.ndarray:
        """Where each clip begins."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    def clips(self) -> Iterator[Tensor]:
        """The samples [N] of clip after clip, in -1..1."""
        for start, length in zip(self.starts(), self.lengths):
            yield in_float(self.audio[start : start + length])


def in_float(audio: Tensor) -> Tensor:
    return audio.float() / 32768


def load_corpus(folder: str, config: tacotron2.config.Config, device: Device) -> Corpus:
    """The clips of a folder in LJ Speech's layout, except those that trainings hold back."""
    clips, _ = find_utterances(config.data_config, folder)

    def read(path: Path) -> np.ndarray:
        return to_16_bit(read_wav(path, config.data_config.sampling_rate))

    with ThreadPoolExecutor(READERS) as pool:
        audio = list(with_progress(pool.map(read, [clip.path for clip in clips]), "reading clips", len(clips)))
    hours = sum(map(len, audio)) / config.data_config.sampling_rate / 3600
    log.info("data: %d clips, %.2f h", len(clips), hours)
    on_device = torch.from_numpy(np.concatenate(audio)).to(device.torch_device)
    return Corpus(on_device, np.array([len(each) for each in audio]), [clip.text for clip in clips])


class Segments:
    """WaveGlow's batches: segments of clips drawn at random, with their mel spectrograms."""

    def __init__(self, corpus: Corpus, config: waveglow.config.Config, device: Device):
        length = config.data_config.segment_length
        long_enough = np.flatnonzero(corpus.lengths > length)
        if not len(long_enough):
            raise UserError(f"no clip is longer than WaveGlow's segment_length of {length} samples")
        on_device = lambda array: torch.from_numpy(array[long_enough]).to(device.torch_device)  # noqa: E731
        self.starts, self.lasts = on_device(corpus.starts()), on_device(corpus.lengths - length)
        self.batch_size = config.train_config.batch_size
        self.audio = corpus.audio
        self.samples = torch.arange(length, device=device.torch_device)
        self.mel = waveglow.config.build_mel(config).to(device.torch_device)

    def batch(self) -> Batch:
        """audio [B, N] and mel [B, n_mel, T]."""
        clips = torch.randint(len(self.starts), (self.batch_size,), device=self.starts.device)
        places = torch.rand(self.batch_size, device=self.starts.device) * self.lasts[clips]
        audio = in_float(self.audio[(self.starts[clips] + places.long())[:, None] + self.samples])
        return {"audio": audio, "mel": self.mel(audio)}


class Utterances:
    """Tacotron2's batches: the clips are split into a few groups by length, each padded to its longest clip."""

    def __init__(self, corpus: Corpus, config: tacotron2.config.Config, device: Device, buckets: int):
        tacotron2.config.check_symbols("the configuration", config, "n_symbols must be their number")
        self.batch_size = config.train_config.batch_size
        if len(corpus.texts) < self.batch_size:
            raise UserError(
                f"{len(corpus.texts)} clips do not make Tacotron2's batch_size of {self.batch_size}: lower it"
            )
        self.rng = np.random.default_rng(config.train_config.seed)
        mel = tacotron2.config.build_mel(config).to(device.torch_device)
        data, dictionary, alphabet = config.data_config, dictionary_of(config.data_config), config.data_config.alphabet
        read = lambda text: text_to_sequence(text, data.text_cleaners, dictionary, alphabet)  # noqa: E731
        texts = [torch.tensor(read(text)) for text in corpus.texts]
        # In half precision, to which a logarithm of 1e-5 to 10 is rounded by 0.004 at most.
        mels = [mel(audio[None])[0].half() for audio in corpus.clips()]
        by_length = np.argsort(corpus.lengths, kind="stable")
        buckets = max(1, min(buckets, len(by_length) // self.batch_size))
        self.buckets = [
            padded([texts[i] for i in clips], [mels[i] for i in clips], device)
            for clips in np.array_split(by_length, buckets)
        ]

    def first_batches(self) -> list[Batch]:
        """A batch of each length."""
        return [in_float32(bucket, slice(self.batch_size)) for bucket in self.buckets]

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The number of a length and a batch of it, without end; each clip at most once in an epoch."""
        size = self.batch_size
        while True:
            plan: list[tuple[int, np.ndarray]] = []
            for number, bucket in enumerate(self.buckets):
                clips = self.rng.permutation(len(bucket["text"]))
                plan += [(number, clips[i : i + size]) for i in range(0, len(clips) - size + 1, size)]
            for i in self.rng.permutation(len(plan)):
                number, clips = plan[i]
                chosen = torch.from_numpy(clips).to(self.buckets[number]["text"].device)
                yield number, in_float32(self.buckets[number], chosen)


def padded(texts: list[Tensor], mels: list[Tensor], device: Device) -> Batch:
    """All clips of a length: text [B, N], mel [B, n_mel, T] float16, text_lengths and mel_lengths [B]."""
    symbols, frames = max(map(len, texts)), max(mel.shape[1] for mel in mels)
    frames = -(-frames // ROUND_FRAMES) * ROUND_FRAMES
    text = torch.zeros(len(texts), symbols, dtype=torch.long)
    mel = torch.zeros(len(mels), len(mels[0]), frames, dtype=torch.float16, device=device.torch_device)
    for row, (each_text, each_mel) in enumerate(zip(texts, mels)):
        text[row, : len(each_text)] = each_text
        mel[row, :, : each_mel.shape[1]] = each_mel
    lengths = lambda of: torch.tensor(of, device=device.torch_device)  # noqa: E731
    return {
        "text": text.to(device.torch_device),
        "text_lengths": lengths([len(each) for each in texts]),
        "mel": mel,
        "mel_lengths": lengths([each.shape[1] for each in mels]),
    }


def in_float32(clips: Batch, chosen: Tensor | slice) -> Batch:
    return {name: tensor[chosen].float() if name == "mel" else tensor[chosen] for name, tensor in clips.items()}
