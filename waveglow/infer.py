"""Synthesize audio with WaveGlow and measure it: python -m waveglow.infer --help"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from common import distributed, program
from common.audio import say_clipped
from common.bad_clips import BadClips
from common.config import AMP_LEVELS
from common.corpus import find_clips, hold_back_clips, wavs_in
from common.device import pick_device
from common.evaluation.runner import check_outputs_differ, facts_of_evaluation, shared_out, write_json
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.hints import add_hint_options, read_hints
from common.mel_forms import FORMS
from common.options import add_run_options, start_log
from common.program import UserError
from common.result_files import Results
from waveglow.config import Config
from waveglow.data import take_census
from waveglow.evaluation import describe, earlier_folders, evaluate, segment_mels, summarize, write_page
from waveglow.segment_mels import SegmentMels
from waveglow.vocoder import Vocoder

log = logging.getLogger(__name__)

EXAMPLES = """\
  python -m waveglow.infer --pth_path=checkpoints/waveglow_21000 --output_directory=out a.wav mel.pt
  python -m waveglow.infer --pth_path=checkpoints/waveglow_21000 --output_directory=out --data_path=LJSpeech-1.1
  python -m waveglow.infer --pth_path=checkpoints/waveglow_21000 --output_directory=out decibels.npy --mel_form=db
"""


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
    add("--amp", choices=AMP_LEVELS, help="precision (default: the device's)")
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


if __name__ == "__main__":
    program.run(main, may_be_rank=True)
