"""All of the deployment: checkpoints, graphs, engines, speech and the report: python -m tools.deploy.run --help"""

import argparse

from common import program
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.log import open_log
from tools.deploy.checks import begin
from tools.deploy.infer_python.results import OUTPUT, Results
from tools.deploy.options import (
    add_log_file,
    add_options_of_all_stages,
    add_quant_mode,
    check_options_of_all_stages,
)

DESCRIPTION = """\
All of it: fetch the checkpoints, export, build engines, speak and report.

What is there is kept: graphs, if no others are named; engines, if they are of these graphs and for these batches; wavs
and reports of earlier runs. Without a network and without a named checkpoint it speaks with the default voice."""

EXAMPLES = """\
  bash run.sh
  bash run.sh --voice=heart
  bash run.sh --engine=magicmind --devices=0,1
  bash run.sh --tacotron2=checkpoints/tacotron2_5000 --waveglow=checkpoints/waveglow_21000"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    settings = begin(args, [args.quant_mode])
    results = Results(args.output, args.log_file, f"{args.quant_mode}_{args.bs[0]}_{args.il}")
    hold_folder(make_output_folder(args.models_dir), option="--models_dir")
    # Only now PyTorch is loaded, which takes seconds.
    from tools.deploy.infer_python.measure import measure
    from tools.deploy.stages import make_engines, make_graphs

    make_graphs(args)
    folder, contents = make_engines(args, settings, args.quant_mode)
    results.make_room()
    results.write([measure(args, folder, contents, batch) for batch in args.bs])


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add_options_of_all_stages(parser, batches=[1], output=OUTPUT)
    add_quant_mode(parser, "force_float16")
    add_log_file(parser)
    args = parser.parse_args()
    check_options_of_all_stages(parser, args)
    return args


if __name__ == "__main__":
    program.run(main)
