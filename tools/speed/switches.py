"""Measure what single decisions for CUDA cards bring: the same job as it is and with one of them changed, in turns in
one process.

    python -m tools.speed.switches OUTPUT --device=cuda

Decisions that a card has not confirmed yet, or that another card may want otherwise. OUTPUT gets switches.md.
"""

import argparse
import gc
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import common  # isort: skip
import torch
from torch import Tensor
from torch.nn import functional as F

import common.layers.matmul
import tacotron2.blocks
import waveglow.wn
from common import program
from common.device import Device, card_name, pick_device, reset_peak_memory, torch_module
from common.files import make_output_folder, written_whole
from common.layers.conv import Conv1d
from common.log import open_log
from common.program import UserError, first_line
from common.training.run import Run
from tacotron2.recorded_steps import RecordedSteps
from tools.speed import jobs
from waveglow.model import WaveGlow

log = logging.getLogger(__name__)

Change = Callable[[Device], AbstractContextManager]

WARM_UPS, CALLS, TURNS = 3, 3, 2
"Calls before the first that is timed, calls timed in a turn, turns."
TENSOR_CORE = 8
"Outputs in half precision of which tensor cores take a multiple."


class Switch(NamedTuple):
    """A decision, and a job that tells what it brings."""

    changed: str
    "How the job is different with the change."
    job: str
    precision: str
    change: Change


@contextmanager
def earlier_gate(device: Device) -> Iterator[None]:
    """The gate of WaveGlow's training in the CPU's kernels."""
    with mock.patch.object(waveglow.wn, "_GateOnCard", waveglow.wn._Gate):
        yield


@contextmanager
def single_row(device: Device) -> Iterator[None]:
    """A single row is multiplied as it is."""
    with mock.patch.object(common.layers.matmul, "ROWS_ON_CARD", 1):
        yield


@contextmanager
def own_graphs(device: Device) -> Iterator[None]:
    """Each text's decoding records its own graph."""
    with mock.patch.object(jobs, "RecordedSteps", lambda decoder: lambda text: RecordedSteps(decoder)(text)):
        yield


@contextmanager
def unrecorded_decoding(device: Device) -> Iterator[None]:
    """Decoding launches its kernels one by one."""
    with mock.patch.object(jobs, "RecordedSteps", lambda decoder: None):
        yield


@contextmanager
def unrecorded_inference(device: Device) -> Iterator[None]:
    """WaveGlow's inference launches its kernels one by one."""
    with mock.patch.object(jobs, "recorded_inference", lambda model, device: model.infer):
        yield


@contextmanager
def recorded_training(device: Device) -> Iterator[None]:
    """WaveGlow's forward and backward passes as CUDA graphs."""
    make_run = jobs.make_run

    def make_recorded(*given: Any) -> Run:
        run = make_run(*given)
        clips = jobs.waveglow_batch(device, jobs.batches_on(device)["waveglow-train"][0])
        sample = tuple(clips[name].to(device.torch_device) for name in ("mel", "audio"))
        # Casts that autocast keeps for later would be in memory that is not the graph's.
        with torch.autocast(device.type, device.half, enabled=run.precision.level == "O1", cache_enabled=False):
            torch_module(device.type).make_graphed_callables(run.model.train(), sample)
        return run

    with mock.patch.object(jobs, "make_run", make_recorded):
        yield


@contextmanager
def at_group_rate(device: Device) -> Iterator[None]:
    """WaveGlow's conditions by more multiplications, but fewer kernels, which move less memory."""
    with mock.patch.object(WaveGlow, "_pays_to_compose", lambda *_: False):
        yield


@contextmanager
def whole_loops(device: Device) -> Iterator[None]:
    """Tacotron2's loops over frames launch their kernels one by one."""
    with mock.patch.object(tacotron2.blocks, "FEWEST", 2**30):
        yield


@contextmanager
def channels_last(device: Device) -> Iterator[None]:
    """WaveGlow's convolutions with the channels last, and with them all tensors between them."""

    def convolve(layer: Conv1d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x, weight = (each.unsqueeze(2).contiguous(memory_format=torch.channels_last) for each in (x, weight))
        y = F.conv2d(x, weight, bias, padding=(0, layer.padding), dilation=(1, layer.dilation))
        return y.squeeze(2)

    with mock.patch.object(Conv1d, "convolve", convolve):
        yield


@contextmanager
def whole_tiles(device: Device) -> Iterator[None]:
    """Outputs of convolutions filled up to what tensor cores take at once."""
    plain = Conv1d.convolve

    def convolve(layer: Conv1d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        outputs, missing = len(weight), -len(weight) % TENSOR_CORE
        weight = F.pad(weight, (0, 0, 0, 0, 0, missing))
        return plain(layer, x, weight, None if bias is None else F.pad(bias, (0, missing)))[:, :outputs]

    with mock.patch.object(Conv1d, "convolve", convolve):
        yield


@contextmanager
def tried_algorithms(device: Device) -> Iterator[None]:
    """cuDNN tries its algorithms for each shape and keeps the fastest."""
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


@contextmanager
def together(device: Device, changes: list[Change]) -> Iterator[None]:
    """Several changes at once."""
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change(device))
        yield


SWITCHES = [
    Switch("a single row is not multiplied as eight", "tacotron2-infer", "float32", single_row),
    Switch("each text records its own graphs", "tacotron2-infer", "half", own_graphs),
    Switch("inference is not recorded", "waveglow-infer", "half", unrecorded_inference),
    Switch("loops over frames are not in blocks", "tacotron2-train", "half", whole_loops),
    Switch("the training step is recorded", "waveglow-train", "half", recorded_training),
    Switch("conditions at the rate of the groups", "waveglow-train", "half", at_group_rate),
    Switch("channels last", "waveglow-train", "half", channels_last),
    Switch("recorded, channels last", "waveglow-train", "half",
           partial(together, changes=[channels_last, recorded_training])),
    Switch("the training's gate takes the CPU's kernels", "waveglow-train", "half", earlier_gate),
    Switch("channels last, conditions at the rate of the groups", "waveglow-train", "half",
           partial(together, changes=[channels_last, at_group_rate])),
    Switch("recorded, channels last, filled up, cuDNN tries", "waveglow-train", "half",
           partial(together, changes=[channels_last, whole_tiles, tried_algorithms, recorded_training])),
    Switch("outputs filled up to multiples of 8", "waveglow-train", "half", whole_tiles),
    Switch("the training step is recorded", "waveglow-train", "tf32", recorded_training),
    Switch("decoding is not recorded", "tacotron2-infer", "half", unrecorded_decoding),
    Switch("inference is not recorded", "waveglow-infer", "float32", unrecorded_inference),
    Switch("cuDNN tries its algorithms", "waveglow-infer", "half", tried_algorithms),
]  # fmt: skip
"What tells most comes first, for where time runs out."


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    device = pick_device(args.device)
    end = time.monotonic() + args.limit
    rows = []
    with torch.random.fork_rng():
        for switch in SWITCHES:
            rows.append(measured(switch, device) if time.monotonic() < end else row(switch, "no time left"))
            log.info("%s", rows[-1])
            with written_whole(make_output_folder(args.output) / "switches.md") as file:
                file.write(report(device, rows).encode())


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(__doc__ or "", "  python -m tools.speed.switches switches --device=cuda\n")
    add = parser.add_argument
    add("output", type=Path, metavar="OUTPUT", help="folder for switches.md")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--limit", type=float, default=600, metavar="SECONDS", help="begin none later (default: %(default)g)")
    return parser.parse_args()


def measured(switch: Switch, device: Device) -> str:
    """A row of the table; what went wrong in place of the figures, since the next ones may go well."""
    gc.collect()  # the last switch's models, which know each other
    reset_peak_memory(device)
    try:
        plain, changed = in_turns([work(switch, device, plainly) for plainly in (True, False)])
    except (RuntimeError, AttributeError, TypeError, UserError) as error:
        return row(switch, f"failed: {first_line(error)}")
    ratio = statistics.median(plain) / statistics.median(changed)
    return row(switch, milliseconds(plain), milliseconds(changed), f"{ratio:.2f}")


def work(switch: Switch, device: Device, plainly: bool) -> Callable[[], object]:
    """The job as a function; the change is on while it is made and at each call."""
    batch = jobs.batches_on(device)[switch.job][0]

    def changed() -> AbstractContextManager:
        jobs.set_rounding(switch.precision, device)
        return ExitStack() if plainly else switch.change(device)

    with changed():
        job = jobs.JOBS[switch.job](device, switch.precision, batch)

    def call() -> None:
        with changed():
            job.work()

    return call


def in_turns(works: list[Callable[[], object]]) -> list[list[float]]:
    """Seconds of the calls of each."""
    seconds: list[list[float]] = [[] for _ in works]
    for call in works:
        for _ in range(WARM_UPS):
            call()
    for _ in range(TURNS):
        for call, taken in zip(works, seconds):
            for _ in range(CALLS):
                began = time.perf_counter()
                call()
                taken.append(time.perf_counter() - began)
    return seconds


def milliseconds(seconds: list[float]) -> str:
    """Median and range."""
    median, least, most = (1000 * each for each in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{median:.1f} ms ({least:.1f}-{most:.1f})"


def row(switch: Switch, *cells: str) -> str:
    """Of the table; missing cells stay empty."""
    every = [switch.changed, switch.job, switch.precision, *cells, *[""] * (3 - len(cells))]
    return "| " + " | ".join(every) + " |"


def report(device: Device, rows: list[str]) -> str:
    """switches.md."""
    where = (
        f"{card_name(device) or 'CPU'}, torch {torch.__version__}; medians of {CALLS * TURNS} calls, with their range."
    )
    head = "| change | job | precision | as it is | changed | times as fast |\n|---|---|---|---|---|---|\n"
    return f"{where}\n\n{head}" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    program.run(main)
