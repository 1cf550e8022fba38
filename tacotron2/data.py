"""Clips with their transcripts, and the batches Tacotron2 learns from."""

import hashlib
import io
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from common.audio import Fault, MelSpectrogram, is_near_silent, read_wav
from common.bad_clips import BadClips
from common.config import AudioConfig
from common.corpus import find_clips, finder, first_readable, hold_back_clips, path_finder, read_transcripts
from common.files import open_input, written_whole
from common.program import UserError
from common.read_clips import read_all
from tacotron2.config import DataConfig
from tacotron2.text import text_to_sequence
from tacotron2.text.dictionary import Dictionary, load_dictionary
from tacotron2.text.remarks import remarks

log = logging.getLogger(__name__)

BATCHES_IN_A_BUCKET = 16
"Batches' worth of clips sorted by length at a time: similar lengths, yet other clips together in every epoch."
REMARKS_SHOWN = 5
CHECKSUM_BYTES = 32
FORM_OF_CACHE = 2
"Version of the format of cached mel spectrograms; files of another version have other names."


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it."""

    path: Path
    text: str


def find_utterances(config: DataConfig, data_path: str, bad: BadClips | None = None) -> tuple[list[Clip], list[Clip]]:
    """Training clips and held-back clips: of the corpus ``data_path``, else of the files the configuration lists.

    What is wrong with the transcripts, with file and line, goes to ``bad``; without it UserError says it.
    """
    found = bad or BadClips()
    if not data_path and config.training_files:
        training = _listed(Path(config.training_files), found)
        held_back = _listed(Path(config.validation_files), found) if config.validation_files else []
    else:
        training, held_back = _spoken(data_path, found), []
    if not bad or len(training) < 2:  # so few, since the others' lines have faults
        found.settle(len(training))
    return (training, held_back) if held_back else hold_back_clips(training)


def _spoken(data_path: str, bad: BadClips) -> list[Clip]:
    """The clips of a folder that have a line in metadata.csv, in the order of their names."""
    clips = find_clips(data_path, bad=bad)
    path = Path(data_path, "metadata.csv")
    if not path.is_file():
        raise UserError(f"{path} is missing: Tacotron2 needs a transcript, a line `name of the wav|text` for each clip")
    find, texts = finder(clips), {}
    for name, text in read_transcripts(path, bad=bad).items():
        clip = find(name)
        if clip in texts:
            bad.add(f"{path}: {name[:100]} is {clip}, which has another line", Fault.TEXT)
        elif clip:
            texts[clip] = text
    if len(texts) < len(clips):
        log.warning("%d of %d clips are left out: %s has no line for them", len(clips) - len(texts), len(clips), path)
    return [Clip(clip, texts[clip]) for clip in clips if clip in texts]


def _listed(path: Path, bad: BadClips) -> list[Clip]:
    """The clips of a file with `path of a wav|text` lines, as NVIDIA's file lists are."""
    texts = read_transcripts(path, columns=(2, 2), bad=bad)
    if not texts and not bad.faults:
        raise UserError(f"{path} lists no clips")
    find = path_finder(path)
    return [Clip(find(name), text) for name, text in texts.items()]


def dictionary_of(config: DataConfig) -> Dictionary | None:
    return load_dictionary(config.dictionary, config.alphabet) if config.dictionary else None


def count_samples_and_symbols(
    clips: list[Clip], config: DataConfig, bad: BadClips | None = None
) -> tuple[list[int], list[int]]:
    """Samples and symbols of each clip, by reading it once; what the texts lose is logged.

    Clips that cannot be used go to ``bad`` and have 0; without it UserError says them.
    """
    dictionary, alphabet, found = dictionary_of(config), config.alphabet, bad or BadClips()
    samples, symbols = [0] * len(clips), [0] * len(clips)
    said: list[str] = []
    clipped = 0
    for number, audio in read_all([clip.path for clip in clips], config.sampling_rate, found):
        clip = clips[number]
        ids = text_to_sequence(clip.text, config.text_cleaners, dictionary, alphabet)
        if fault := _fault(clip, audio, ids, config):
            found.add(*fault, clip.path)
            continue
        samples[number], symbols[number] = len(audio), len(ids)
        clipped += bool(np.abs(audio).max() > 1)
        lost = remarks(clip.text, config.text_cleaners, alphabet, dictionary)
        said += [f"{clip.path.name}: {remark}" for remark in lost]
    if not bad:
        found.settle(len(clips))
    if clipped:
        said.insert(0, f"{clipped} clip(s) have samples beyond full scale, which are clipped")
    for remark in said[:REMARKS_SHOWN]:
        log.warning("%s", remark)
    if len(said) > REMARKS_SHOWN:
        log.warning("... and %d more such remarks", len(said) - REMARKS_SHOWN)
    return samples, symbols


def _fault(clip: Clip, audio: np.ndarray, ids: list[int], config: DataConfig) -> tuple[str, Fault] | None:
    """Why a clip that can be read, audio [N], cannot be learned from."""
    if len(audio) < config.filter_length:
        few = f"has {len(audio)} samples, fewer than a frame's {config.filter_length}"
        return f"{clip.path} {few}", Fault.SHORT
    if not config.alphabet.has_letter(ids):
        return f"{clip.path}: of its text {clip.text[:50]!r} nothing is left to speak", Fault.TEXT
    if is_near_silent(audio):
        return f"{clip.path} is silent, though its text is {clip.text[:50]!r}", Fault.SILENT
    return None


def bucketed(lengths: list[int], batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """An order for each epoch in which batches hold clips of similar length, drawn from seed and epoch.

    Clips are shuffled, sorted within buckets of some batches, and the batches shuffled; the clips
    that fill no batch come last, others in every epoch.
    """

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        clips = rng.permutation(len(lengths))
        whole = len(clips) // batch_size * batch_size
        bucket = BATCHES_IN_A_BUCKET * batch_size
        by_length = [
            sorted(clips[i : min(i + bucket, whole)], key=lambda clip: lengths[clip]) for i in range(0, whole, bucket)
        ]
        batches = np.array([clip for some in by_length for clip in some], dtype=np.int64).reshape(-1, batch_size)
        return np.concatenate([rng.permutation(batches).reshape(-1), clips[whole:]])

    return order


class MelCache:
    """Mel spectrograms of wavs, computed once and kept in a folder, each with a checksum behind it.

    Several processes may fill it at once: each file appears whole. What was computed from other
    content of the wav or with other settings has another name.
    """

    def __init__(self, folder: Path, config: AudioConfig, mel: MelSpectrogram):
        self.folder = folder
        self.mel = mel
        self.rate = config.sampling_rate
        fields = [getattr(config, name) for name in AudioConfig.__dataclass_fields__]
        self.settings = (FORM_OF_CACHE, *fields, len(mel.filters))
        self.takes_more = True

    def __call__(self, wav: Path) -> Tensor:
        """wav -> mel [n_mel, T]. UserError if the wav cannot be read."""
        try:
            stat = wav.stat()
        except OSError as error:
            raise UserError(f"{wav}: {error.strerror}") from error
        key = repr((str(wav.resolve()), stat.st_size, stat.st_mtime_ns, self.settings)).encode()
        path = self.folder / f"{wav.stem}_{zlib.crc32(key):08x}.npy"
        kept = self._find(path, key)
        if kept is None:
            kept = self.mel(torch.from_numpy(read_wav(wav, self.rate))[None])[0]
            self._keep(path, key, kept)
        return kept

    def _find(self, path: Path, key: bytes) -> Tensor | None:
        """mel [n_mel, T]; None where there is nothing yet or, with a warning, where it was not written for this key."""
        try:
            with open_input(path) as file:
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cannot read %s: %s; the mel spectrogram is made anew", path, error.strerror)
            return None
        array, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
        if hashlib.sha256(key + array).digest() != checksum:
            log.warning("%s is damaged (its checksum differs): the mel spectrogram is made anew", path)
            return None
        return torch.from_numpy(np.load(io.BytesIO(array)))

    def _keep(self, path: Path, key: bytes, mel: Tensor) -> None:
        """mel [n_mel, T]. Training goes on without the cache where the disk is full."""
        if not self.takes_more:
            return
        array = io.BytesIO()
        np.save(array, mel.numpy())
        try:
            with written_whole(path) as file:
                file.write(array.getvalue() + hashlib.sha256(key + array.getvalue()).digest())
        except OSError as error:
            self.takes_more = False
            reason = error.strerror or error
            log.warning("cannot write %s: %s; mel spectrograms are computed each time", path, reason)


class Utterances(Dataset):
    """Clips as the model takes them, looked up by number or by (epoch, number)."""

    def __init__(self, clips: list[Clip], config: DataConfig, mels: Callable[[Path], Tensor], on_bad_clip: str):
        self.clips = clips
        self.config = config
        self.mels = mels
        self.on_bad_clip = on_bad_clip
        self.dictionary, self.alphabet = dictionary_of(config), config.alphabet

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        number = key if isinstance(key, int) else key[1]
        return first_readable(self._item, number, len(self.clips), self.on_bad_clip)

    def _item(self, number: int) -> dict:
        clip = self.clips[number]
        text = text_to_sequence(clip.text, self.config.text_cleaners, self.dictionary, self.alphabet)
        return {"names": clip.path.name, "text": torch.tensor(text), "mel": self.mels(clip.path)}


def collate(items: list[dict]) -> dict:
    """A batch: names, text [B, N] ids and mel [B, n_mel, T], 0 behind the ends; text_lengths, mel_lengths [B]."""
    texts, mels = [item["text"] for item in items], [item["mel"].t() for item in items]
    return {
        "names": [item["names"] for item in items],
        "text": pad_sequence(texts, batch_first=True),
        "text_lengths": torch.tensor([len(text) for text in texts]),
        "mel": pad_sequence(mels, batch_first=True).transpose(1, 2),
        "mel_lengths": torch.tensor([len(mel) for mel in mels]),
    }
