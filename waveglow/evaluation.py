"""A clip synthesized with WaveGlow and measured, and the page of an evaluation."""

import argparse
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.audio import count_clipped, read_wav, write_wav
from common.evaluation import page, pictures
from common.evaluation.metrics import mel_cepstral_distortion, mel_l1
from common.evaluation.runner import CLIPS_ON_PAGE, clips_below, describe_training, mean, output_name, plot_training
from common.mel_files import is_mel_file, read_mel
from common.mel_forms import to_natural_log
from common.program import UserError
from waveglow.data import pad_and_dither
from waveglow.loss import WaveGlowLoss
from waveglow.segment_mels import SegmentMels
from waveglow.vocoder import Vocoder

log = logging.getLogger(__name__)

COLUMNS = ["seconds", "loss", "mel L1", "MCD (dB)", "real-time factor"]
NOTE = (
    "loss: negative log-likelihood of the recording; mel L1: mean distance of the natural-log mel"
    " spectrograms; MCD: mel cepstral distortion; real-time factor: seconds of computing for a second"
    " of audio, below 1 is faster than it is heard. A dash: there was a mel spectrogram and no recording."
)


@dataclass
class ClipFigures:
    """Figures of a clip; nan where only a spectrogram was given."""

    name: str
    seconds: float
    loss: float
    mel_l1: float
    mel_cepstral_distortion: float
    real_time_factor: float
    clipped: int
    "Samples."

    def figures(self) -> list[str]:
        """For the page's table."""
        values = (self.seconds, self.loss, self.mel_l1, self.mel_cepstral_distortion, self.real_time_factor)
        return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]


def read_input(path: Path, vocoder: Vocoder, form: str) -> tuple[Tensor, Tensor | None]:
    """mel [n_mel, T], and the recording [N] if the file is one. UserError for what does not fit."""
    if is_mel_file(path):
        mel = read_mel(path, vocoder.config.waveglow_config.n_mel_channels)
        try:
            return to_natural_log(mel, form), None
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    audio = torch.from_numpy(read_wav(path, vocoder.config.data_config.sampling_rate))
    return vocoder.spectrogram(audio), audio


def evaluate(path: Path, vocoder: Vocoder, args: argparse.Namespace, output: Path, mels: SegmentMels) -> ClipFigures:
    """Synthesize one input, write the wav and measure it."""
    mel, recording = read_input(path, vocoder, args.mel_form)
    source = mel if recording is None or not mels.given else mels.given(path)
    began = time.perf_counter()
    audio = vocoder.synthesize(source, args.sigma, args.denoiser_strength, args.seed)
    elapsed = time.perf_counter() - began
    if recording is not None:
        audio = audio[: len(recording)]
    if not torch.isfinite(audio).all():
        raise UserError(f"the audio of {path} is not finite: the checkpoint is not usable at this precision")
    rate = vocoder.config.data_config.sampling_rate
    write_wav(output / output_name(path), audio, rate)
    synthesized = vocoder.spectrogram(audio)
    clip = ClipFigures(
        name=path.stem,
        seconds=len(audio) / rate,
        loss=math.nan if recording is None else recording_loss(recording, vocoder, mels, path),
        mel_l1=mel_l1(mel, synthesized),
        mel_cepstral_distortion=mel_cepstral_distortion(mel, synthesized),
        real_time_factor=elapsed / (len(audio) / rate),
        clipped=count_clipped(audio),
    )
    log.info("%s: %s", clip.name, describe(clip))
    return clip


@torch.no_grad()
def recording_loss(recording: Tensor, vocoder: Vocoder, mels: SegmentMels | None = None, path: Path = Path()) -> float:
    """The training loss on consecutive segments of a recording [N]; ``path``, its file, finds its mel in given ones."""
    config = vocoder.config
    length = config.data_config.segment_length
    mels = mels or segment_mels(vocoder)
    criterion = WaveGlowLoss(config.train_config.sigma)
    place = (vocoder.device.torch_device, vocoder.precision.input_dtype)
    losses = []
    for start in range(0, max(1, len(recording) - length + 1), length):
        start -= start % mels.step
        samples = pad_and_dither(recording[start : start + length].numpy(), length, np.random.default_rng(start))
        item = mels(path, start, samples)
        mel, audio = (item[name][None].to(*place) for name in ("mel", "audio"))
        with vocoder.precision.autocast():
            losses.append(criterion(vocoder.model(mel, audio)))
    # Read at the end, since the host waits for a card each time.
    return sum(torch.stack(losses).tolist()) / len(losses)


def segment_mels(vocoder: Vocoder, mels_path: str = "") -> SegmentMels:
    """The mels of recordings, or the given ones; not those that the model was trained on."""
    return SegmentMels(replace(vocoder.config.data_config, mels_path=mels_path), vocoder.mel)


def summarize(clips: list[ClipFigures]) -> ClipFigures:
    """All clips as one: total seconds, measures averaged over clips, time by length."""
    seconds = sum(clip.seconds for clip in clips)
    return ClipFigures(
        name="overall",
        seconds=seconds,
        loss=mean(clip.loss for clip in clips),
        mel_l1=mean(clip.mel_l1 for clip in clips),
        mel_cepstral_distortion=mean(clip.mel_cepstral_distortion for clip in clips),
        real_time_factor=sum(clip.real_time_factor * clip.seconds for clip in clips) / seconds,
        clipped=sum(clip.clipped for clip in clips),
    )


def describe(clip: ClipFigures) -> str:
    return ", ".join(f"{column} {figure}" for column, figure in zip(COLUMNS, clip.figures()))


def earlier_folders(args: argparse.Namespace) -> list[Path]:
    """The folders that ``--earlier`` names."""
    return [Path(name) for name in args.earlier.split(",") if name]


def write_page(
    output: Path,
    inputs: list[Path],
    clips: list[ClipFigures],
    overall: ClipFigures,
    vocoder: Vocoder,
    args: argparse.Namespace,
) -> None:
    """index.html with the training curve, the table, and the first clips to see and hear."""
    rate = vocoder.config.data_config.sampling_rate
    paths = {path.stem: path for path in inputs}
    entries: list[dict[str, Any]] = [{"name": clip.name, "figures": clip.figures(), "sounds": {}} for clip in clips]
    for entry in entries[:CLIPS_ON_PAGE]:
        mel, recording = read_input(paths[entry["name"]], vocoder, args.mel_form)
        wav = output_name(paths[entry["name"]])
        synthesis = torch.from_numpy(read_wav(output / wav, rate))
        entry["sounds"]["synthesized"] = page.as_wav(synthesis, rate)
        earlier = {folder.name: folder / wav for folder in earlier_folders(args) if (folder / wav).is_file()}
        others = {name: page.as_wav(read_wav(path, rate), rate) for name, path in earlier.items()}
        if recording is not None:
            others = {"original": page.as_wav(recording, rate)} | others
        entry["sounds"] = others | entry["sounds"]
        spectrograms = {"original": mel, "synthesized": vocoder.spectrogram(synthesis)}
        entry["images"] = {"mel spectrograms": page.as_png(pictures.plot_spectrograms(spectrograms))}
    page.write_page(
        output / "index.html",
        title="WaveGlow evaluation",
        facts={
            "checkpoint": args.pth_path,
            "trained": describe_training(vocoder.training),
            "sigma": args.sigma,
            "denoiser strength": args.denoiser_strength,
            "device": f"{vocoder.device.torch_device}, {vocoder.precision.level}{args.int8 * ', int8'}",
        },
        curve=plot_training(vocoder.training),
        columns=COLUMNS,
        clips=entries,
        overall=overall.figures(),
        note=NOTE + clips_below(len(clips)),
    )
