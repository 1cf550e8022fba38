"""A clip spoken with Tacotron2 and measured, and the page of an evaluation."""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.audio import read_wav, write_wav
from common.evaluation import page, pictures
from common.evaluation.metrics import mel_cepstral_distortion, mel_l1
from common.evaluation.runner import CLIPS_ON_PAGE, clips_below, describe_training, mean, output_name, plot_training
from common.files import written_whole
from common.random_numbers import own_random_numbers
from tacotron2.data import Clip, collate
from tacotron2.griffin_lim import GriffinLim
from tacotron2.loss import Tacotron2Loss
from tacotron2.model import Utterance
from tacotron2.synthesizer import Synthesizer

log = logging.getLogger(__name__)

COLUMNS = [
    "recorded (s)", "loss", "mel L1", "MCD (dB)", "spoken (s)", "ended", "diagonality", "coverage", "real-time factor",
]  # fmt: skip
NOTE = (
    "loss, mel L1, MCD: how well each frame is predicted when the recording before it is given (teacher forcing),"
    " measured on natural-log mel spectrograms; the rest is about free speech, at the first try. ended: by"
    " itself, not at the limit. diagonality, coverage: how steadily attention advances with the text, and"
    " which share of the symbols it visits, both near 1 for good speech. real-time factor: seconds of Tacotron2's"
    " computing for a second of speech."
)


@dataclass
class ClipFigures:
    """Figures of a clip, or their means over all clips."""

    name: str
    seconds: float
    "Length of the recording."
    loss: float
    mel_l1: float
    mel_cepstral_distortion: float
    frames: int
    "Length of the free speech; the fields below are about it, too."
    spoken_seconds: float
    stopped: float
    "1 if the gate ended it, else 0; for all clips, the share."
    diagonality: float
    coverage: float
    real_time_factor: float

    def figures(self) -> list[str]:
        """For the page's table."""
        before = (self.seconds, self.loss, self.mel_l1, self.mel_cepstral_distortion, self.spoken_seconds)
        after = (self.diagonality, self.coverage, self.real_time_factor)
        stopped = {0.0: "no", 1.0: "yes"}.get(self.stopped, f"{self.stopped:.0%}")
        return [*(f"{value:.3f}" for value in before), stopped, *(f"{value:.3f}" for value in after)]


@dataclass
class Predicted:
    """Prediction of a recording's spectrogram with teacher forcing."""

    loss: float
    mel: Tensor
    "[n_mel, T]"
    gate: Tensor
    "[S], the probability of the end at each of the decoder's steps."
    alignment: Tensor
    "[S, N]"


def evaluate(
    clip: Clip,
    synthesizer: Synthesizer,
    vocoder: GriffinLim,
    seed: int,
    output: Path,
    draw: bool,
) -> tuple[ClipFigures, dict[str, str]]:
    """Speak a clip's text, write wav and mel, measure; the figures, and if asked for pictures for the page."""
    config = synthesizer.config.data_config
    recording = torch.from_numpy(read_wav(clip.path, config.sampling_rate))
    mel = synthesizer.mel(recording[None])[0]
    predicted = predict(clip, mel, synthesizer, seed)
    began = time.perf_counter()
    (spoken,) = synthesizer.speak([clip.text], seed, tries=1)
    elapsed = time.perf_counter() - began
    utterance = spoken.utterance
    spoken_seconds = utterance.length * config.hop_length / config.sampling_rate
    write_wav(output / output_name(clip.path), vocoder.synthesize(utterance.mel, seed), config.sampling_rate)
    with written_whole(output / f"{clip.path.stem}_mel.npy") as file:
        np.save(file, utterance.mel.numpy())
    measured = ClipFigures(
        name=clip.path.stem,
        seconds=len(recording) / config.sampling_rate,
        loss=predicted.loss,
        mel_l1=mel_l1(mel, predicted.mel),
        mel_cepstral_distortion=mel_cepstral_distortion(mel, predicted.mel),
        frames=utterance.length,
        spoken_seconds=spoken_seconds,
        stopped=float(utterance.stopped),
        diagonality=utterance.diagonality,
        coverage=utterance.coverage,
        real_time_factor=elapsed / spoken_seconds,
    )
    log.info("%s: %s", measured.name, describe(measured))
    return measured, draw_pictures(mel, predicted, utterance) if draw else {}


@torch.no_grad()
def predict(clip: Clip, mel: Tensor, synthesizer: Synthesizer, seed: int) -> Predicted:
    """Each frame of the recording's mel [n_mel, T] from those before it; the prenet's dropout is drawn by ``seed``."""
    batch = collate([{"names": clip.path.name, "text": torch.tensor(synthesizer.symbols(clip.text)), "mel": mel}])
    text, text_lengths, mel, mel_lengths = (
        batch[name].to(synthesizer.device.torch_device) for name in ("text", "text_lengths", "mel", "mel_lengths")
    )
    with own_random_numbers(seed, synthesizer.device), synthesizer.precision.autocast():
        output = synthesizer.model(text, text_lengths, mel, mel_lengths)
    config = synthesizer.config
    criterion = Tacotron2Loss(config.train_config.guided_attention, config.tacotron2_config.n_frames_per_step)
    loss = criterion(output, text_lengths, mel, mel_lengths).item()
    refined, gate, alignment = (each[0].cpu() for each in output[1:])
    return Predicted(loss, refined, gate.sigmoid(), alignment)


def draw_pictures(mel: Tensor, predicted: Predicted, utterance: Utterance) -> dict[str, str]:
    """Data URIs by their captions, of a clip with the recorded mel [n_mel, T]."""
    spectrograms = {"recorded": mel, "predicted from the recording": predicted.mel, "spoken freely": utterance.mel}
    figures = {
        "mel spectrograms": pictures.plot_spectrograms(spectrograms),
        "attention with the recording given": pictures.plot_alignment(predicted.alignment),
        "attention in free speech": pictures.plot_alignment(utterance.alignment),
        "the gate, with the recording given": pictures.plot_gate(predicted.gate),
    }
    return {caption: page.as_png(figure) for caption, figure in figures.items()}


def summarize(clips: tuple[ClipFigures, ...]) -> ClipFigures:
    """All clips as one: lengths added up, measures averaged over clips, time by length."""
    spoken_seconds = sum(clip.spoken_seconds for clip in clips)
    averaged = ("loss", "mel_l1", "mel_cepstral_distortion", "stopped", "diagonality", "coverage")
    return ClipFigures(
        name="overall",
        seconds=sum(clip.seconds for clip in clips),
        frames=sum(clip.frames for clip in clips),
        spoken_seconds=spoken_seconds,
        real_time_factor=sum(clip.real_time_factor * clip.spoken_seconds for clip in clips) / spoken_seconds,
        **{name: mean(getattr(clip, name) for clip in clips) for name in averaged},
    )


def describe(clip: ClipFigures) -> str:
    return ", ".join(f"{column} {figure}" for column, figure in zip(COLUMNS, clip.figures()))


def write_page(
    output: Path,
    clips: list[Clip],
    measured: tuple[ClipFigures, ...],
    pictures: tuple[dict[str, str], ...],
    overall: ClipFigures,
    synthesizer: Synthesizer,
    args: argparse.Namespace,
) -> None:
    """index.html with the training curve, the table, and the first clips to see and hear."""
    rate = synthesizer.config.data_config.sampling_rate
    entries = [
        {"name": each.name, "figures": each.figures(), "sounds": {}, "images": images}
        for each, images in zip(measured, pictures)
    ]
    for entry, clip in zip(entries[:CLIPS_ON_PAGE], clips):
        entry["text"] = clip.text
        entry["sounds"] = {
            "recorded": page.as_wav(read_wav(clip.path, rate), rate),
            "spoken": page.as_wav(read_wav(output / output_name(clip.path), rate), rate),
        }
    page.write_page(
        output / "index.html",
        title="Tacotron2 evaluation",
        facts={
            "checkpoint": args.pth_path,
            "trained": describe_training(synthesizer.training),
            "sound by": "Griffin-Lim, a preview",
            "device": f"{synthesizer.device.torch_device}, {synthesizer.precision.level}",
        },
        curve=plot_training(synthesizer.training),
        columns=COLUMNS,
        clips=entries,
        overall=overall.figures(),
        note=NOTE + clips_below(len(clips)),
    )
