"""Measure training and inference, side by side with other implementations: python tools/benchmark.py --help"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip  # noqa: F401 - before torch, see there
import torch

from common import program
from common.device import Device, card_name, pick_device
from common.files import make_output_folder, written_whole
from common.folder_lock import hold_folder
from common.layers.int8 import why_no_int8
from common.log import open_log, with_progress
from common.program import UserError
from tools.deploy.engines.hardware_names import processor_name
from tools.speed.examples import has_examples
from tools.speed.jobs import DATA, JOBS, ROOT, batches_on
from tools.speed.measure import LOADING, NVIDIA, NVIDIA_EXAMPLES, ONNX_RUNTIME, OURS, PEAK, PYTORCH, measured
from tools.speed.peers import check_checkout
from tools.speed.table import Measurement, plot, table

log = logging.getLogger(__name__)

DESCRIPTION = """\
Measure the speed of training and inference with the full configurations.

  waveglow-train   whole steps; batch 2 of 8000 samples on a CPU, 24 of 16000 on a card
  waveglow-infer   100 mel frames to audio, batch 1
  tacotron2-infer  128 symbols, 200 frames whatever the gate says, batch 1, on a card 4 and 8, too; text to
                   refined spectrogram
  tacotron2-train  whole steps; clips of 350-870 frames and 60-150 symbols, batch 16 on a CPU, 64 on a card
  voice-infer      a sentence of 128 characters to audio, by the voice that comes with the repository

Except for the voice, weights and inputs are random, which makes no difference to the speed. Everything runs in
turns, in a process of its own each time. What is loaded from disk is measured apart, as "data loading". Operations
are those of convolutions and matrix products, as this repository needs them; the peak is what a product
of two large matrices reaches in that precision in the same run. NVIDIA's Tacotron2 speaks one text at a
time, and larger batches are compared with that; DeepLearningExamples are NVIDIA's later versions of both."""

EXAMPLES = """\
  python tools/benchmark.py waveglow-infer
  python tools/benchmark.py tacotron2-infer --precision float32 half int8
  python tools/benchmark.py all --peer_path peers    (beside NVIDIA's: git clone its waveglow and tacotron2 there)"""

LIMIT = 3600
"Seconds for one process."
ROUNDS = 2
"Turns that each implementation gets, so that a machine that slows down slows all of them."


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    device = pick_device(args.device)
    hold_folder(make_output_folder(args.output))
    measurements = [*peaks(args.precision), *(each for job in args.jobs for each in planned(job, args, device))]
    began = time.monotonic()
    with onnx_models(measurements) as models:
        for each in with_progress(measurements * ROUNDS, "measuring"):
            if args.limit and time.monotonic() - began > args.limit:
                log.warning("out of time: some of this is measured once or not at all")
                break
            folder = models if each.implementation == ONNX_RUNTIME else args.peer_path or ""
            measure(each, device, Path(folder), args)
            write(args.output, device, [each for each in measurements if each.seconds])
    print((args.output / "benchmark.md").read_text(), end="")
    log.info("wrote benchmark.md, .png and .json to %s", args.output)


def write(output: Path, device: Device, measurements: list[Measurement]) -> None:
    """What has been measured so far."""
    with written_whole(output / "benchmark.md") as file:
        file.write(f"{machine(device)}\n\n{table(measurements)}".encode())
    with written_whole(output / "benchmark.png") as file:
        plot(measurements).savefig(file, format="png", dpi=80)
    found = {"machine": machine(device), "measurements": [asdict(each) for each in measurements]}
    with written_whole(output / "benchmark.json") as file:
        file.write(json.dumps(found, indent=2).encode())


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("job", nargs="?", default="all", choices=[*JOBS, "all"], help="default: all")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--precision", nargs="+", default=["float32", "half"], choices=["float32", "tf32", "half", "bf16", "int8"],
        help="half: the device's, bfloat16 on CPUs and newer cards, else float16; tf32: float32 with products rounded"
             " to TF32, on cards; int8: inference on CPUs (default: float32 half)")  # fmt: skip
    add("--peer_path", type=Path, metavar="DIR",
        help="measure NVIDIA's DIR/waveglow and DIR/tacotron2, too, and DIR/DeepLearningExamples if it is")  # fmt: skip
    add("--one_process", action="store_true",
        help="all in this process: saves the start-ups, but on a CPU a job has no peak memory of its own")  # fmt: skip
    add(
        "--limit",
        type=float,
        default=0,
        metavar="SECONDS",
        help="stop measuring after this long (default: no limit)",
    )
    add("--repeats", type=int, default=3, metavar="N", help="in each of two turns (default: %(default)s)")
    add("-o", "--output", type=Path, default=Path("benchmark"), metavar="OUT",
        help="folder for benchmark.md, a table, .png, a plot of it, and .json (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f"--repeats is {args.repeats}, must be 1 or above")
    if not args.limit >= 0:
        parser.error(f"--limit is {args.limit}, must be 0 or above")
    args.jobs = list(JOBS) if args.job == "all" else [args.job]
    for network in {job.partition("-")[0] for job in args.jobs} - {"voice"} if args.peer_path else ():
        check_checkout(args.peer_path, network)
    return args


def peaks(precisions: list[str]) -> list[Measurement]:
    """Peak that the jobs' operations are compared with; int8 has no floating-point operations."""
    return [Measurement(PEAK, PYTORCH, each, 0) for each in precisions if each != "int8"]


def planned(job: str, args: argparse.Namespace, device: Device) -> Iterator[Measurement]:
    """Measurements of a job. NVIDIA's float32 comes first, since the others are compared with it."""
    infers = job.endswith("infer")
    for batch in batches_on(device)[job]:
        measurement = partial(Measurement, job, batch=batch)
        if job == "voice-infer":
            yield from (measurement(OURS, each) for each in args.precision if each != "int8")
            continue
        # NVIDIA's Tacotron2 speaks one text at a time.
        if args.peer_path and not (job == "tacotron2-infer" and batch > 1):
            yield measurement(NVIDIA, "float32")
            if device.type != "cpu":
                yield measurement(NVIDIA, "half")
        if infers and device.type == "cpu":
            yield from (measurement(ONNX_RUNTIME, each) for each in ("float32", "int8") if each in args.precision)
        int8 = job == "waveglow-infer" and not why_no_int8(device)
        yield from (measurement(OURS, each) for each in args.precision if each != "int8" or int8)
        recomputed = job == "waveglow-train" and "half" in args.precision
        if recomputed:
            yield measurement(OURS, "half, recomputed")
        # What there may be no time for comes last: NVIDIA's other code, and a minute of compiling.
        if args.peer_path and has_examples(args.peer_path):
            yield measurement(NVIDIA_EXAMPLES, "float32")
            if device.type != "cpu":
                yield measurement(NVIDIA_EXAMPLES, "half")
        if recomputed and device.type == "cuda":
            yield measurement(OURS, "half, compiled")
        if job in DATA:
            yield measurement(LOADING, "float32")


@contextmanager
def onnx_models(measurements: list[Measurement]) -> Iterator[str]:
    """The folder of the graphs that ONNX Runtime is to run, with random weights, as long as they are needed."""
    modes = {each.precision for each in measurements if each.implementation == ONNX_RUNTIME}
    with tempfile.TemporaryDirectory() as folder:
        models = f"{folder}/random"
        if modes:
            log.info("exporting the graphs for ONNX Runtime")
            start("tools.deploy.export_model.export", "--random", "--models_dir", folder)
        for mode in sorted(modes):
            quant_mode = "int8" if mode == "int8" else "force_float32"
            start("tools.deploy.gen_model.build", "--models_dir", models, "--quant_mode", quant_mode, "--no-compare")
        yield models


def measure(measurement: Measurement, device: Device, folder: Path, args: argparse.Namespace) -> None:
    """A turn: add its seconds to the measurement."""
    asked = {name: getattr(measurement, name) for name in ("job", "implementation", "precision", "batch")}
    asked["repeats"] = args.repeats
    if args.one_process:
        found = measured(**asked, device=device, folder=folder)
    else:
        asked |= {"device": device.type, "folder": str(folder)}
        found = json.loads(start("tools.speed.measure", json.dumps(asked)).splitlines()[-1])
    measurement.units = found["units"]
    measurement.seconds += found["seconds"]
    measurement.peak_memory = max(measurement.peak_memory, found["peak_memory"])
    measurement.operations = found["operations"]


def start(module: str, *args: str) -> str:
    """Run a module in a process and give back what it prints. UserError with its last line if it fails."""
    command = [sys.executable, "-m", module, *args]
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=LIMIT, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{module} {' '.join(args)} took more than {LIMIT} s") from error
    if done.returncode:
        reason = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        raise UserError(f"{module} {' '.join(args)}: {reason.removeprefix('error: ')}")
    return done.stdout


def machine(device: Device) -> str:
    """For the head of the table."""
    where = card_name(device) or f"{processor_name()}, {torch.get_num_threads()} threads"
    return f"{date.today()}, {where}, torch {torch.__version__}; medians of {ROUNDS} turns."


if __name__ == "__main__":
    program.run(main)
