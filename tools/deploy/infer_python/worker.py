"""The work of one device: batch after batch of texts to wavs, timed."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.audio import write_wav
from common.program import UserError
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import find_engine
from tools.deploy.infer_python.latency import Iteration
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.infer_python.requests import Request, reader


@dataclass
class Work:
    """All that a process has to know."""

    folder: Path
    contents: Contents
    device: int
    shares: int
    "How many processes there are."
    warmup: list[list[Request]]
    "Batches that are not counted."
    batches: list[list[Request]]
    sigma: float
    with_waveglow: bool


@dataclass(frozen=True)
class Ready:
    """Loaded and warm."""


Message = str | Ready | Iteration


def do(work: Work) -> Iterator[Message]:
    """Yield the name of the device; load the engines, warm up, and yield Ready; then what is measured."""
    engine = find_engine(work.contents.engine)(work.device, work.shares, work.contents.options)
    yield engine.device_name
    pipeline = Pipeline(work.folder, work.contents, engine, work.with_waveglow)
    to_ids = reader(work.contents)
    for clips in work.warmup:
        speak(clips, to_ids, pipeline, Wavs(work.contents), work)
    yield Ready()
    wavs = Wavs(work.contents)
    for clips in work.batches:
        yield speak(clips, to_ids, pipeline, wavs, work)
    pipeline.graphs.clear()
    engine.close()


def speak(
    clips: list[Request], to_ids: Callable[[str], list[int]], pipeline: Pipeline, wavs: "Wavs", work: Work
) -> Iteration:
    """One batch."""
    began = time.perf_counter()
    texts = [to_ids(clip.text) for clip in clips]
    seeds = [clip.seed for clip in clips]
    pipeline.seconds.clear()
    ids_there = time.perf_counter()
    mel, lengths = pipeline.spectrograms(texts, seeds)
    mel_there = audio_there = time.perf_counter()
    audio: list[np.ndarray] = []
    if work.with_waveglow:
        audio = pipeline.audio(mel, lengths, work.sigma, seeds)
        audio_there = time.perf_counter()
    check_finite([mel, *audio], work)
    for clip, each in zip(clips, audio):
        wavs.add(clip, each)
    return Iteration(
        preprocessing=ids_there - began,
        encoder=pipeline.seconds["encoder"],
        decoder=pipeline.seconds["decoder"],
        postnet=pipeline.seconds["postnet"],
        waveglow=pipeline.seconds.get("waveglow", 0.0),
        tacotron2=mel_there - ids_there,
        latency=audio_there - ids_there,
        postprocessing=time.perf_counter() - audio_there,
        batch=len(clips),
        mels=mel.shape[2],
        samples=len(audio) * mel.shape[2] * pipeline.hop_length,
        endless=int((lengths == pipeline.limit * pipeline.frames_per_step).sum()),
    )


def check_finite(arrays: Iterable[np.ndarray], work: Work) -> None:
    """UserError if a number is not finite."""
    if not all(np.isfinite(each).all() for each in arrays):
        raise UserError(f"what {work.folder} computes is not finite: {work.contents.quant_mode} does not suffice here")


class Wavs:
    """Wavs made of one clip or of several."""

    def __init__(self, contents: Contents):
        self.rate = contents.waveglow.data_config.sampling_rate
        self.parts: list[np.ndarray] = []

    def add(self, clip: Request, audio: np.ndarray) -> None:
        """The clips of a wav have to come one after the other."""
        self.parts += [audio, np.zeros(round(clip.pause * self.rate), np.float32)]
        if clip.ends:
            write_wav(clip.wav, np.concatenate(self.parts), self.rate)
            self.parts.clear()
