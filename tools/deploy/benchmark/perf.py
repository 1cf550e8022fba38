"""Measure engines in all modes and batches, as a table and a plot: python -m tools.deploy.benchmark.perf --help"""

import argparse
import json
import logging

from common import program
from common.files import make_output_folder, written_whole
from common.folder_lock import hold_folder
from common.log import open_log
from common.program import UserError
from tools.deploy.checks import begin
from tools.deploy.engines.engine import QUANT_MODES
from tools.deploy.infer_python.latency import Run
from tools.deploy.infer_python.results import OUTPUT, check_files, set_aside, wavs_in, write
from tools.deploy.options import add_options_of_all_stages, check_options_of_all_stages, quant_mode

log = logging.getLogger(__name__)

DESCRIPTION = """\
Measure engines in all modes and batches; what is not exported or built yet will be, as by run.sh.

OUT gets perf.md, a table; perf.png, a plot; perf.json, every iteration. A mode that cannot be built or run has
a row that says why, and the others are measured."""

EXAMPLES = """\
  bash benchmark/perf.sh
  bash benchmark/perf.sh --no-waveglow --num_iters=3
  bash benchmark/perf.sh --voice=heart --quant_modes force_float32 int8 --bs 1,8"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    settings = begin(args, args.quant_modes)
    hold_folder(make_output_folder(args.output), option="-o")
    hold_folder(make_output_folder(args.models_dir), option="--models_dir")
    files = [args.output / f"perf.{suffix}" for suffix in ("md", "json", "png")]
    check_files([*files, *wavs_in(args.output)])
    # Only now PyTorch is loaded, which takes seconds.
    from tools.deploy.benchmark.table import plot, table
    from tools.deploy.infer_python.measure import measure
    from tools.deploy.stages import make_engines, make_graphs

    make_graphs(args)
    set_aside([*files, *wavs_in(args.output)])
    runs: list[Run] = []
    failed: dict[str, str] = {}
    for mode in args.quant_modes:
        try:
            folder, contents = make_engines(args, settings, mode)
            runs += [measure(args, folder, contents, batch) for batch in args.bs]
        except UserError as error:
            failed[mode] = str(error)
            log.error("%s is left out: %s", mode, error)
    if not runs:
        raise UserError(f"no mode can be measured: {'; '.join(failed.values())}")
    write(files[0], table(runs, failed))
    write(files[1], json.dumps({"runs": [run.as_json() for run in runs], "failed": failed}, indent=2))
    with written_whole(files[2]) as file:
        plot(runs).savefig(file, format="png", dpi=110)
    print(table(runs, failed))
    log.info("wrote perf.md, perf.png and perf.json to %s", args.output)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add_options_of_all_stages(parser, batches=[1, 4, 8], output=OUTPUT)
    parser.add_argument(
        "--quant_modes", "--quant_mode", nargs="+", type=quant_mode, choices=QUANT_MODES, default=QUANT_MODES,
        help="default: all",
    )  # fmt: skip
    args = parser.parse_args()
    check_options_of_all_stages(parser, args)
    return args


if __name__ == "__main__":
    program.run(main)
