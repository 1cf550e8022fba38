"""Speak with engines, and report how long it takes: python -m tools.deploy.infer_python.infer --help"""

import argparse
from pathlib import Path

from common import program
from common.log import open_log
from common.program import UserError
from tools.deploy import commands
from tools.deploy.artifacts import CONTENTS, Contents, engine_folder, read_contents
from tools.deploy.gen_model.settings import DEFAULT, batches_for
from tools.deploy.infer_python.results import OUTPUT, Results
from tools.deploy.options import (
    add_engine,
    add_log_file,
    add_measuring_options,
    add_models_dir,
    add_quant_mode,
    check_measuring_options,
)

DESCRIPTION = """\
Speak with the engines that tools.deploy.gen_model.build has made, and report how long it takes.

It speaks one English sentence again and again, cut to the input length and given to every clip
of the batch; or, with --text, each line of a text once. Wavs go to OUT, the report to the terminal or
to --log_file, and as JSON beside it. Those of an earlier run are kept, in a folder with their date."""

EXAMPLES = """\
  python -m tools.deploy.infer_python.infer --quant_mode force_float16 --bs 1 --il 128
  python -m tools.deploy.infer_python.infer --engine magicmind --devices 0,1 --num_iters 1000 --log_file latency.txt
  python -m tools.deploy.infer_python.infer --text story.txt --bs 4 -o story"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    folder, contents = find_engines(args)
    batches = list(dict.fromkeys(contents.ranges["batch"])) if args.all else args.bs
    check_sizes(args, folder, contents, batches)
    # Only now PyTorch is loaded, which takes seconds.
    from common.corpus import read_lines
    from tools.deploy.infer_python.measure import measure
    from tools.deploy.infer_python.requests import pronunciations

    pronunciations(contents.tacotron2)
    text = read_lines(Path(args.text)) if args.text else None
    results = Results(args.output, args.log_file, f"{args.quant_mode}_{args.bs[0]}_{args.il}")
    results.make_room()
    results.write([measure(args, folder, contents, batch, text) for batch in batches])


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_engine(parser)
    add_models_dir(parser)
    add_measuring_options(parser, batches=[1], output=OUTPUT)
    add_quant_mode(parser, "force_float32")
    add("--all", action="store_true", help="the smallest, usual and largest batch that the engines are built for")
    add("--text", metavar="FILE", help="speak this file once, each line to a wav, in place of --il, --num_iters")
    add_log_file(parser)
    args = parser.parse_args()
    check_measuring_options(parser, args)
    if args.text and (args.all or args.no_waveglow or len(args.bs) > 1):
        parser.error("--text goes with one --bs, and neither with --all nor with --no-waveglow")
    return args


def find_engines(args: argparse.Namespace) -> tuple[Path, Contents]:
    """The models_dir, if engines are in it, or else the folder in it where they are by default."""
    if (args.models_dir / CONTENTS).is_file():
        contents = read_contents(args.models_dir, args.engine, "name another --engine or --models_dir")
        if contents.quant_mode != args.quant_mode:
            what = f"{args.models_dir} is {contents.quant_mode}, and {args.quant_mode} is asked for"
            raise UserError(f"{what}: name another quant mode or --models_dir")
        return args.models_dir, contents
    folder = engine_folder(args.models_dir, args.engine, args.quant_mode)
    how = commands.build(args.engine, args.quant_mode, batches_for(args.bs), args.models_dir)
    return folder, read_contents(folder, args.engine, how)


def check_sizes(args: argparse.Namespace, folder: Path, contents: Contents, batches: list[int]) -> None:
    """UserError for sizes that the engines were not built for."""
    for batch in batches:
        how = f"choose another, or build others: {contents.build_command(folder, batches_for(batches))}"
        contents.check_range("batch", batch, "--bs", how)
    if not args.text:
        how = f"choose another, or build others with --json=FILE, a copy of {DEFAULT} with other ranges.text"
        contents.check_range("text", args.il, "--il", how)


if __name__ == "__main__":
    program.run(main)
