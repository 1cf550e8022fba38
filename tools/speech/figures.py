"""The figures of synthesized clips: alone, against recordings and against texts."""

import math
import multiprocessing
import os
import signal
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from common.audio import MelSpectrogram, read_wav
from common.evaluation import metrics
from common.evaluation.runner import mean
from common.log import with_progress
from common.program import UserError
from tools.speech.recognizer import error_rates, make_normalizer

FEW_FRAMES = 4
"Clips whose lengths differ by no more are compared frame by frame: what a vocoder made of a recording's spectrogram."


@dataclass(frozen=True)
class Pair:
    """A clip to measure; whether its files are there is not known yet."""

    name: str
    synthesized: Path
    recording: Path | None
    text: str
    "Empty where it is not known."


@dataclass
class Figures:
    """Figures of a clip, or their means or medians over all clips; nan where not measured."""

    name: str
    seconds: float = math.nan
    recorded_seconds: float = math.nan
    duration_ratio: float = math.nan
    mel_l1: float = math.nan
    mel_cepstral_distortion: float = math.nan
    pitch_error: float = math.nan
    "Cents."
    voicing_error: float = math.nan
    level_correlation: float = math.nan
    peak: float = math.nan
    clipped: float = math.nan
    near_silence: float = math.nan
    word_error_rate: float = math.nan
    character_error_rate: float = math.nan


@dataclass
class SpeechFigures(Figures):
    """The figures of one clip, and how they came about."""

    warped: bool = False
    "Whether dynamic time warping chose the frames that mel L1, pitch and energy compare."
    said: str = ""
    heard: str = ""
    "Both normalized, empty without a recognizer."


def measure_all(pairs: list[Pair]) -> list[SpeechFigures | UserError]:
    """Each pair's figures, or why it has none; in several processes, since finding the pitch takes long."""
    processes = min(len(os.sched_getaffinity(0)), len(pairs))
    if processes == 1:
        return list(with_progress(map(try_to_measure, pairs), "measuring", len(pairs)))
    # In a new environment numba compiles this at its first import, and mixes up what several processes compile at once.
    import librosa.core.pitch  # noqa: F401

    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        # The processes inherit it. A terminal's Ctrl-C goes to all; this one then ends the others.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            results = pool.map(try_to_measure, pairs)
        finally:
            signal.signal(signal.SIGINT, before)
        return list(with_progress(results, "measuring", len(pairs)))


def try_to_measure(pair: Pair) -> SpeechFigures | UserError:
    try:
        return measure(pair)
    except UserError as error:
        return error


def measure(pair: Pair) -> SpeechFigures:
    """Everything but what a recognizer hears. UserError if a file cannot be used."""
    mel = MelSpectrogram()
    audio = read_clip(pair.synthesized, mel)
    recording = read_clip(pair.recording, mel) if pair.recording else None
    levels = metrics.frame_levels(audio, mel.win_length, mel.hop_length)
    clip = SpeechFigures(
        name=pair.name,
        seconds=len(audio) / mel.sampling_rate,
        peak=float(np.abs(audio).max()),
        clipped=metrics.clipped_share(audio),
        near_silence=float((levels < metrics.NEAR_SILENCE).mean()),
    )
    if recording is not None:
        compare(clip, recording, audio, mel)
    return clip


def read_clip(path: Path, mel: MelSpectrogram) -> np.ndarray:
    """Samples [N] in -1..1. UserError if they are none, or too few."""
    audio = read_wav(path, mel.sampling_rate)
    if len(audio) < mel.filter_length:
        raise UserError(f"{path} has {len(audio)} samples, fewer than a frame's {mel.filter_length}")
    return audio


def compare(clip: SpeechFigures, recording: np.ndarray, audio: np.ndarray, mel: MelSpectrogram) -> None:
    """Measure the samples [N] of a clip against its recording's [M], which may have another length."""
    a, b = (mel(torch.from_numpy(samples)[None])[0] for samples in (recording, audio))
    path = metrics.warping_path(a, b)
    clip.mel_cepstral_distortion = metrics.mel_cepstral_distortion(a[:, path[0]], b[:, path[1]])
    clip.warped = abs(a.shape[1] - b.shape[1]) > FEW_FRAMES
    i, j = path if clip.warped else 2 * [np.arange(min(a.shape[1], b.shape[1]))]
    clip.mel_l1 = metrics.mel_l1(a[:, i], b[:, j])
    pitches = [metrics.pitch(samples, mel.sampling_rate, mel.hop_length) for samples in (recording, audio)]
    clip.pitch_error = metrics.pitch_error(pitches[0][i], pitches[1][j])
    clip.voicing_error = metrics.voicing_error(pitches[0][i], pitches[1][j])
    levels = [metrics.frame_levels(samples, mel.win_length, mel.hop_length) for samples in (recording, audio)]
    clip.level_correlation = metrics.level_correlation(levels[0][i], levels[1][j])
    clip.recorded_seconds = len(recording) / mel.sampling_rate
    clip.duration_ratio = clip.seconds / clip.recorded_seconds


def recognize(measured: dict[Pair, SpeechFigures], hear: Callable[[np.ndarray, int], str]) -> None:
    """Let the recognizer write down each clip, and count its errors."""
    normalize = make_normalizer()
    rate = MelSpectrogram().sampling_rate
    for pair, clip in with_progress(measured.items(), "recognizing", len(measured)):
        clip.said, clip.heard = normalize(pair.text), normalize(hear(read_wav(pair.synthesized, rate), rate))
        clip.word_error_rate, clip.character_error_rate = error_rates([clip.said], [clip.heard])


def summarize(clips: Iterable[SpeechFigures]) -> tuple[Figures, Figures]:
    """Means and medians of the clips; instead of means, the error rates are those of all texts together."""
    clips = list(clips)
    names = [field.name for field in fields(Figures) if field.name != "name"]
    known = {name: [x for clip in clips if not math.isnan(x := getattr(clip, name))] for name in names}
    means = Figures("mean", **{name: mean(some) for name, some in known.items()})
    if known["word_error_rate"]:
        rates = error_rates([clip.said for clip in clips], [clip.heard for clip in clips])
        means.word_error_rate, means.character_error_rate = rates
    return means, Figures("median", **{name: statistics.median(some) for name, some in known.items() if some})
