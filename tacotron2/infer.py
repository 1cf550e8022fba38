"""Speak the held-back clips of a corpus with Tacotron2 and measure the speech, or predict the mels of a whole corpus:
python -m tacotron2.infer --help"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from common import distributed, program
from common.bad_clips import BadClips
from common.config import AMP_LEVELS
from common.device import pick_device
from common.evaluation.runner import CLIPS_ON_PAGE, check_outputs_differ, facts_of_evaluation, shared_out, write_json
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.hints import add_hint_options, read_hints
from common.options import add_run_options, start_log
from common.result_files import Results
from tacotron2.config import Config
from tacotron2.data import Clip, count_samples_and_symbols, find_utterances
from tacotron2.evaluation import describe, evaluate, summarize, write_page
from tacotron2.griffin_lim import GriffinLim
from tacotron2.synthesizer import Synthesizer
from tacotron2.teacher_forced import predict_corpus

log = logging.getLogger(__name__)

EXAMPLES = """\
  python -m tacotron2.infer --pth_path=checkpoints/tacotron2_5000 --output_directory=out --data_path=LJSpeech-1.1
  python -m tacotron2.infer --pth_path=checkpoints/tacotron2_5000 --output_directory=mels --data_path=LJSpeech-1.1 \\
      --teacher_forced
"""


def main() -> None:
    args = read_arguments()
    ranks = distributed.ranks()
    start_log(args)
    device = pick_device(args.device, args.device_id or ranks.local_rank)
    synthesizer = Synthesizer(args.pth_path, device, args.amp or "", hints=read_hints(args, [Config]))
    output = make_output_folder(args.output_directory)
    distributed.start(device)
    distributed.first_ranks(lambda: hold_folder(output, "--output_directory"))
    if args.teacher_forced:
        distributed.agree(facts_of_evaluation(args, synthesizer.model, ()))
        predict_corpus(args, synthesizer, output)
        distributed.stop()
        return
    vocoder = GriffinLim(synthesizer.mel)
    clips = find_held_back(args, synthesizer, output)
    check_outputs_differ(clip.path for clip in clips)
    distributed.agree(facts_of_evaluation(args, synthesizer.model, (clip.path for clip in clips)))

    began = time.perf_counter()
    done = shared_out(
        range(len(clips)), lambda i: evaluate(clips[i], synthesizer, vocoder, args.seed, output, i < CLIPS_ON_PAGE)
    )
    elapsed = time.perf_counter() - began
    distributed.stop()
    if ranks.rank > 0:
        return
    measured, pictures = zip(*done)
    overall = summarize(measured)
    log.info("overall: %s", describe(overall))
    write_json(output / "evaluation.json", {"checkpoint": args.pth_path, "seed": args.seed}, overall, measured)
    write_page(output, clips, measured, pictures, overall, synthesizer, args)
    log.info("wrote %d wavs and mels, evaluation.json and index.html to %s", len(clips), output)
    results = Results(
        network="Tacotron2_for_PyTorch",
        rank_size=ranks.world_size,
        batch_size=args.batch_size or synthesizer.config.train_config.batch_size,
        case=args.case,
        fps=len(clips) / elapsed,
        samples_per_second=overall.spoken_seconds * synthesizer.config.data_config.sampling_rate / elapsed,
        iteration_seconds=elapsed / len(clips),
        losses=[overall.loss],
    )
    results.write(args)


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = program.Parser("Speak the held-back clips of a corpus and measure the speech.", EXAMPLES)
    add_run_options(parser)
    add = parser.add_argument
    add("--pth_path", required=True, metavar="FILE", help="checkpoint, of any form")
    add("--output_directory", required=True, metavar="DIR", help="for wavs, mels, evaluation.json and index.html")
    add("--seed", type=int, default=1234, help="the same seed gives the same speech (default: %(default)s)")
    add("--amp", choices=AMP_LEVELS, help="precision (default: the device's)")
    add("--on_bad_clip", default="stop", choices=["stop", "skip"], help="what to do with clips that cannot be used")
    add(
        "--teacher_forced",
        action="store_true",
        help="write the mels of the whole corpus, in step with its recordings, for WaveGlow's --mels_path",
    )
    add("--training_files", default="", metavar="FILE", help="with --teacher_forced, a list of `wav|text` to predict")
    add("--batch_size", type=int, metavar="N", help="with --teacher_forced (default: 16); else for the result's name")
    add_hint_options(parser, speech=True)
    args = parser.parse_args(given)
    if args.training_files and (args.data_path or not args.teacher_forced):
        parser.error("--training_files belongs to --teacher_forced, in place of --data_path")
    if args.batch_size is not None and args.batch_size < 1:
        parser.error("--batch_size must be at least 1")
    if not 0 <= args.seed < 2**63:
        parser.error("--seed must be at least 0 and below 2**63")
    return args


def find_held_back(args: argparse.Namespace, synthesizer: Synthesizer, output: Path) -> list[Clip]:
    """The held-back clips that can be used. UserError as ``BadClips.settle``."""
    config, bad = synthesizer.config.data_config, BadClips(args.on_bad_clip, output)
    _, clips = find_utterances(config, args.data_path, bad)
    count_samples_and_symbols(clips, config, bad)
    bad.settle(len(clips))
    return bad.without(clips, "held-back")


if __name__ == "__main__":
    program.run(main, may_be_rank=True)
