"""Build engines from the exported graphs: python -m tools.deploy.gen_model.build --help"""

import argparse
from pathlib import Path

from common import program
from common.log import open_log
from tools.deploy.artifacts import engine_folder
from tools.deploy.gen_model.settings import load_settings
from tools.deploy.options import (
    add_build_options,
    add_engine,
    add_models_dir,
    add_numbers,
    add_quant_mode,
    check_batches,
)
from tools.deploy.signatures import GRAPHS

DESCRIPTION = """\
Build engines from the graphs that tools.deploy.export_model.export has made, for a range of batch sizes.

They go to DIR/ENGINE_MODE. Modes: force_float32; force_float16 (on a CPU only the weights are in half
precision, and onnxruntime computes in float32, torch in bfloat16); int8 (weights; what is computed in 8 bits
depends on the engine). What a mode other than force_float32 costs is measured in distances of mel
spectrograms, and reported. Engines of these graphs and options that are already there are kept."""

EXAMPLES = """\
  python -m tools.deploy.gen_model.build --quant_mode force_float16 --bs 1 4 8
  python -m tools.deploy.gen_model.build --engine magicmind --quant_mode force_float32 --json my.json -o engines"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    settings = load_settings(args.json)
    # Only now PyTorch is loaded, which takes seconds.
    from tools.deploy.gen_model.building import Order, build

    build(
        Order(
            engine=args.engine,
            quant_mode=args.quant_mode,
            models_dir=args.models_dir,
            folder=args.output or engine_folder(args.models_dir, args.engine, args.quant_mode),
            settings=settings.for_batches(args.bs) if args.bs else settings,
            graphs={name: getattr(args, name) for name in GRAPHS if getattr(args, name)},
            json=args.json,
            compare=not args.no_compare,
        )
    )


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_engine(parser)
    add_quant_mode(parser, "force_float32")
    what = "smallest, usual and largest batch, or one for all (default: the configuration's)"
    add_numbers(parser, "--bs", "-bs", "--batch-size", dest="bs", default=None, help=what)
    add_build_options(parser)
    add_models_dir(parser)
    add("-o", "--output", type=Path, metavar="DIR", help="for the engines (default: in the models_dir)")
    for name in GRAPHS:
        add(f"--{name}", type=Path, metavar="FILE", help=f"use this {name}.onnx, not that of the models_dir")
    add("--no-compare", action="store_true", help="do not measure what the mode costs")
    args = parser.parse_args()
    check_batches(parser, args.bs or [])
    if args.bs and len(args.bs) == 1:
        args.bs *= 3
    return args


if __name__ == "__main__":
    program.run(main)
