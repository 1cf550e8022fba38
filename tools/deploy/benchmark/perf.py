"""Measure engines in all modes and batches, as a table and a plot: python -m tools.deploy.benchmark.perf --help"""

import argparse
import json
import logging
from typing import Any

from matplotlib.figure import Figure

from common import program
from common.files import make_output_folder, written_whole
from common.log import open_log
from tools.deploy.artifacts import writing
from tools.deploy.engines.engine import QUANT_MODES
from tools.deploy.infer_python.infer import (
    add_measuring_options,
    check_measuring_options,
    find_engines,
    measure,
    numbers,
    write,
)
from tools.deploy.infer_python.latency import RATES

log = logging.getLogger(__name__)

DESCRIPTION = """\
Measure the engines that tools.deploy.gen_model.build has made, in all modes and batches.

OUT gets perf.md, a table; perf.png, a plot; perf.json, every iteration."""

EXAMPLES = """\
  python -m tools.deploy.benchmark.perf
  python -m tools.deploy.benchmark.perf --quant_modes force_float32 int8 --bs 1,8 --num_iters 3 --no-waveglow"""

FRAMES, SAMPLES = RATES
COLUMNS = (
    "model", "input length", "quant mode", "batch", "mel frames/s", "samples/s", "latency (s)", "cl 95 (s)",
    "Tacotron2's mel L1", "WaveGlow's mel L1", "device",
)  # fmt: skip
NOTE = """\
mel frames/s: Tacotron2, all clips of a batch together; samples/s: Tacotron2 and WaveGlow; both of all
devices. Latency: of a batch, from ids to audio. mel L1: distance of the mode's log-mel spectrograms from those
of the exported graphs; WaveGlow's are of its audio.
"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    make_output_folder(args.output)
    engines = {mode: find_engines(args, mode) for mode in args.quant_modes}
    for _, contents in engines.values():  # before the first is measured
        for batch in args.bs:
            contents.check_range("batch", batch, "--bs")
    runs = []
    for mode, (folder, contents) in engines.items():
        for batch in args.bs:
            log.info("%s, batch %d", mode, batch)
            runs.append(measure(args, folder, contents, batch))
    write(args.output / "perf.md", table(runs))
    write(args.output / "perf.json", json.dumps({"runs": runs}, indent=2))
    image = args.output / "perf.png"
    with writing(image), written_whole(image) as file:
        plot(runs).savefig(file, format="png", dpi=110)
    print(table(runs))
    log.info("wrote perf.md, perf.png and perf.json to %s", args.output)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add_measuring_options(parser)
    parser.add_argument("--quant_modes", nargs="+", choices=QUANT_MODES, default=QUANT_MODES, help="default: all")
    parser.add_argument("--bs", type=numbers, default=[1, 4, 8], metavar="N,N", help="batches (default: 1,4,8)")
    args = parser.parse_args()
    check_measuring_options(parser, args)
    return args


def table(runs: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(row, runs)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows) + f"\n\n{NOTE}"


def row(run: dict[str, Any]) -> list[str]:
    first = run["devices"][0]
    latency = max(device["report"]["Latency average (seconds)"] for device in run["devices"])
    slowest = max(device["report"]["Latency cl 95 (seconds)"] for device in run["devices"])
    random = " (random weights)" if "random weights" in run["weights"].values() else ""
    return [
        f"{'Tacotron2 + WaveGlow' if SAMPLES in run['sum'] else 'Tacotron2'}{random}",
        str(run["input_length"]),
        run["quant_mode"],
        str(run["batch"]),
        f"{run['sum'][FRAMES]:,.0f}",
        f"{run['sum'][SAMPLES]:,.0f}" if SAMPLES in run["sum"] else "-",
        f"{latency:.3f}",
        f"{slowest:.3f}",
        *(f"{run['cost'][kind]:.2g}" if run["cost"] else "-" for kind in ("tacotron2", "waveglow")),
        first["name"] if len(run["devices"]) == 1 else f"{len(run['devices'])} times {first['name']}",
    ]


def plot(runs: list[dict[str, Any]]) -> Figure:
    """Rates over batches, a line for each mode."""
    rates = [rate for rate in RATES if rate in runs[0]["sum"]]
    figure = Figure(figsize=(4.5 * len(rates), 3.2), layout="constrained")
    titles = {FRAMES: "Tacotron2: mel frames/s", SAMPLES: "Tacotron2 + WaveGlow: samples/s"}
    for axis, rate in zip(figure.subplots(ncols=len(rates), squeeze=False)[0], rates):
        for mode in dict.fromkeys(run["quant_mode"] for run in runs):
            points = [(run["batch"], run["sum"][rate]) for run in runs if run["quant_mode"] == mode]
            axis.plot(*zip(*points), "o-", label=mode)
        axis.set_title(titles[rate], fontsize=10, loc="left")
        axis.set_xlabel("batch")
        axis.set_xticks(sorted({run["batch"] for run in runs}))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    program.run(main)
