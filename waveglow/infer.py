"""Synthesize audio with WaveGlow and measure it: python -m waveglow.infer --help"""

import argparse
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import distributed, program
from common.audio import count_clipped, read_wav, say_clipped, write_wav
from common.bad_clips import BadClips
from common.corpus import find_clips, hold_back_clips, wavs_in
from common.device import pick_device
from common.evaluation import page, pictures
from common.evaluation.metrics import mel_cepstral_distortion, mel_l1
from common.evaluation.runner import (
    CLIPS_ON_PAGE,
    check_outputs_differ,
    describe_training,
    facts_of_evaluation,
    mean,
    output_name,
    plot_training,
    shared_out,
    write_json,
)
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.hints import add_hint_options, read_hints
from common.mel_files import is_mel_file, read_mel
from common.mel_forms import FORMS, to_natural_log
from common.options import add_run_options, start_log
from common.program import UserError
from common.result_files import Results
from waveglow.config import Config
from waveglow.data import pad_and_dither, take_census
from waveglow.loss import WaveGlowLoss
from waveglow.segment_mels import SegmentMels
from waveglow.vocoder import Vocoder

log = logging.getLogger(__name__)

EXAMPLES = """\
  python -m waveglow.infer --pth_path=checkpoints/waveglow_21000 --output_directory=out a.wav mel.pt
  python -m waveglow.infer --pth_path=checkpoints/waveglow_21000 --output_directory=out --data_path=LJSpeech-1.1
  python -m waveglow.infer --pth_path=checkpoints/waveglow_21000 --output_directory=out decibels.npy --mel_form=db
"""

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
    clipped: int = 0
    "Samples."

    def figures(self) -> list[str]:
        """For the page's table."""
        values = (self.seconds, self.loss, self.mel_l1, self.mel_cepstral_distortion, self.real_time_factor)
        return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]


def main() -> None:
    args = read_arguments()
    ranks = distributed.ranks()
    start_log(args)
    device = pick_device(args.device, args.device_id or ranks.local_rank)
    hints = read_hints(args, [Config])
    vocoder = Vocoder(args.pth_path, device, args.amp or "", args.chunk_frames, args.int8, hints)
    output = make_output_folder(args.output_directory)
    distributed.start(device)
    distributed.first_ranks(lambda: hold_folder(output, "--output_directory"))
    mels = segment_mels(vocoder, args.mels_path)
    inputs = find_inputs(args.inputs) if args.inputs else find_held_back(args, vocoder, output, mels)
    check_outputs_differ(inputs)
    distributed.agree(facts_of_evaluation(args, vocoder.model, inputs))

    began = time.perf_counter()
    clips = shared_out(inputs, lambda path: evaluate(path, vocoder, args, output, mels))
    elapsed = time.perf_counter() - began
    distributed.stop()
    if ranks.rank > 0:
        return
    overall = summarize(clips)
    log.info("overall: %s", describe(overall))
    say_clipped(overall.clipped, round(overall.seconds * vocoder.config.data_config.sampling_rate))
    facts = {name: getattr(args, name) for name in ("sigma", "denoiser_strength", "seed", "int8")}
    write_json(output / "evaluation.json", {"checkpoint": str(args.pth_path)} | facts, overall, clips)
    write_page(output, inputs, clips, overall, vocoder, args)
    log.info("wrote %d wavs, evaluation.json and index.html to %s", len(clips), output)
    results = Results(
        network="WaveGlow_for_PyTorch",
        rank_size=ranks.world_size,
        batch_size=args.batch_size or vocoder.config.train_config.batch_size,
        case=args.case,
        fps=len(clips) / elapsed,
        samples_per_second=overall.seconds * vocoder.config.data_config.sampling_rate / elapsed,
        iteration_seconds=elapsed / len(clips),
        losses=[overall.loss],
    )
    results.write(args)


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = program.Parser("Synthesize audio from wavs or mel spectrograms and measure it.", EXAMPLES)
    add_run_options(parser)
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="FILE",
        help="wavs, or mels [n_mel, T] as .npy, .npz or .pt; default: the held-back clips of --data_path",
    )
    add("--pth_path", required=True, metavar="FILE", help="checkpoint")
    add("--output_directory", required=True, metavar="DIR", help="for wavs, evaluation.json and index.html")
    add("--mel_form", default="", choices=FORMS, help="what mels hold (default: natural logarithms, checked)")
    add("--mels_path", default="", metavar="DIR", help="mels of these names to synthesize wavs from: Tacotron2's")
    add("--sigma", type=float, default=0.6, help="scale of the noise (default: %(default)s)")
    add("--denoiser_strength", type=float, default=0.0, help="0 = off (default); try 0.1")
    add("--seed", type=int, default=1234, help="of the noise (default: %(default)s)")
    add("--chunk_frames", type=int, default=1000, metavar="N", help="mel frames done at a time; fewer take less memory")
    add("--amp", choices=["O0", "O1", "O2"], help="precision (default: the device's)")
    add("--int8", action="store_true", help="convolutions in 8-bit integers, the fastest on CPUs with VNNI")
    add("--earlier", default="", metavar="DIR,...", help="earlier evaluations of these clips, for the page to play too")
    add("--on_bad_clip", default="stop", choices=["stop", "skip"], help="what to do with clips that cannot be used")
    add("--batch_size", type=int, help="only for the name of the result file")
    add_hint_options(parser, speech=False)
    args = parser.parse_args(given)
    for name, smallest in (("chunk_frames", 1), ("sigma", 0), ("denoiser_strength", 0), ("seed", 0)):
        if not smallest <= getattr(args, name) < 2**63:
            parser.error(f"--{name} must be at least {smallest} and below 2**63")
    for folder in earlier_folders(args):
        if not folder.is_dir():
            parser.error(f"--earlier: {folder} is no folder")
    if not args.inputs and not args.data_path:
        parser.error("name wavs or mels, or give --data_path")
    return args


def find_inputs(names: list[str]) -> list[Path]:
    """The files, and of folders the wavs in them."""
    paths = [p for name in names for p in (wavs_in(Path(name)) if Path(name).is_dir() else [Path(name)])]
    if not paths:
        raise UserError(f"no wavs in {', '.join(names)}")
    return paths


def find_held_back(args: argparse.Namespace, vocoder: Vocoder, output: Path, mels: SegmentMels) -> list[Path]:
    """The held-back clips that can be used. UserError as ``BadClips.settle``."""
    bad = BadClips(args.on_bad_clip, output)
    clips = hold_back_clips(find_clips(args.data_path, bad=bad))[1]
    take_census(clips, vocoder.config.data_config, bad, mels)
    bad.settle(len(clips))
    return bad.without(clips, "held-back")


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
        note=NOTE + (f" The first {CLIPS_ON_PAGE} clips are below." if len(clips) > CLIPS_ON_PAGE else ""),
    )


if __name__ == "__main__":
    program.run(main, may_be_rank=True)
