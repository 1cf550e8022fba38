"""What a device computes in a job, kernel by kernel: a training step of each model, a decoding, WaveGlow's inference.

    python -m tools.speed.kernels OUTPUT --device=cuda

For each job OUTPUT gets a table of the kernels (.md) and a trace for chrome://tracing or Perfetto (.json.gz). On a CPU,
which has no kernels, the table has operators: that is for trying it.
"""

import argparse
import gc
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import common  # isort: skip  # noqa: F401 - before torch, see there
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from common import program
from common.device import Device, card_name, pick_device
from common.files import make_output_folder, written_whole
from common.log import open_log
from common.program import UserError, first_line
from tools.speed.jobs import JOBS, batches_on, set_rounding

log = logging.getLogger(__name__)

WARM_UPS = 3
"Calls before the one that is timed: in the third WaveGlow's inference is recorded as a graph."
ROWS, WIDTH = 40, 140
"Kernels in a table, and characters of their names."
COPIES = ("Memcpy", "Memset")
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
"Beginnings of names: of what a card does that is no kernel, and of the host's calls."


class Profiled(NamedTuple):
    """A job of which one call is profiled."""

    job: str
    precision: str
    operators: bool = True
    "Whether the trace shows PyTorch's operators above the kernels of a card."


PROFILED = [
    Profiled("waveglow-train", "half"),
    Profiled("waveglow-infer", "float32"),
    Profiled("waveglow-infer", "half"),
    Profiled("tacotron2-infer", "float32"),
    Profiled("tacotron2-infer", "half"),
    # 70,000 kernels: with their operators the trace would be too large to look at.
    Profiled("tacotron2-train", "half", operators=False),
]


class Row(NamedTuple):
    """A line of the table."""

    name: str
    calls: int
    seconds: float
    "Of all calls, without what they called."


def main() -> None:
    parser = program.Parser(__doc__ or "", "  python -m tools.speed.kernels kernels --device=cuda\n")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for the tables and traces")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu"], help="default: %(default)s")
    args: argparse.Namespace = parser.parse_args()
    open_log(None, quiet=False)
    device = pick_device(args.device)
    folder = make_output_folder(args.output)
    # CUPTI, which takes the profiles, may crash where it ends and begins anew beside CUDA graphs (torch.profiler says
    # so of its own). It is there from before the first graph to the end.
    os.environ |= {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}
    with profile(activities=activities(device, operators=False)):
        torch.zeros(1, device=device.torch_device).add_(1)
    failed = []
    for each in PROFILED:
        name = f"{each.job}_{each.precision}"
        try:
            wall, found = profiled(each, device)
            found.export_chrome_trace(str(folder / f"{name}.json.gz"))
            text = report(name, device, wall, found.key_averages())
        except (RuntimeError, AttributeError, TypeError, UserError) as error:  # the next ones may go well
            failed.append(f"{name}: {first_line(error)}")
            continue
        with written_whole(folder / f"{name}.md") as file:
            file.write(text.encode())
        log.info("%s", "\n".join(text.splitlines()[:12]))
    if failed:
        raise UserError("; ".join(failed))


def profiled(what: Profiled, device: Device) -> tuple[float, profile]:
    """The seconds of a call that is not profiled, and the profile of the next one."""
    gc.collect()  # the last job's model
    set_rounding(what.precision, device)
    job = JOBS[what.job](device, what.precision, batches_on(device)[what.job][0])
    for _ in range(WARM_UPS):
        job.work()
    wall = seconds_of(job.work)
    with profile(activities=activities(device, what.operators)) as found:
        job.work()
    return wall, found


def activities(device: Device, operators: bool) -> list[ProfilerActivity]:
    """What a profile notes. What the host asks of a card comes with the card's kernels."""
    if device.type == "cpu":
        return [ProfilerActivity.CPU]
    return [ProfilerActivity.CUDA, *[ProfilerActivity.CPU] * operators]


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report(name: str, device: Device, wall: float, entries: Iterable[Any]) -> str:
    """The table of ``profile.key_averages()``, and what it adds up to."""
    entries = list(entries)
    rows = rows_on_card(entries) if device.type == "cuda" else rows_on_cpu(entries)
    rows = sorted((each for each in rows if each.calls), key=lambda row: -row.seconds)
    total = sum(row.seconds for row in rows)
    lines = [
        f"{name}, {card_name(device) or 'CPU'}, torch {torch.__version__}: {milliseconds(wall)} without the profiler,"
        f" {milliseconds(total)} computing; {', '.join(counts(entries, rows, device))}.",
        "",
        "| ms | share | calls | us each | name |",
        "|---|---|---|---|---|",
    ]
    for row in rows[:ROWS]:
        lines.append(
            f"| {1e3 * row.seconds:.3f} | {row.seconds / total if total else 0:.1%} | {row.calls}"
            f" | {1e6 * row.seconds / row.calls:.1f} | {row.name[:WIDTH].replace('|', '/')} |"
        )
    left_out = rows[ROWS:]
    if left_out:
        seconds, calls = sum(row.seconds for row in left_out), sum(row.calls for row in left_out)
        lines.append(f"| {1e3 * seconds:.3f} | {seconds / total:.1%} | {calls} | | {len(left_out)} others |")
    return "\n".join(lines) + "\n"


def rows_on_card(entries: list[Any]) -> list[Row]:
    """Kernels and copies; the card's side of an annotation would count what is in it once more."""
    on_card = (each for each in entries if each.device_type == DeviceType.CUDA)
    kernels = (each for each in on_card if not getattr(each, "is_user_annotation", False))
    return [Row(each.key, each.count, each.self_device_time_total / 1e6) for each in kernels]


def rows_on_cpu(entries: list[Any]) -> list[Row]:
    return [Row(each.key, each.count, each.self_cpu_time_total / 1e6) for each in entries]


def counts(entries: list[Any], rows: list[Row], device: Device) -> list[str]:
    """How often the card computes and copies, and how often the host asks it to and waits for it."""
    if device.type == "cpu":
        return [f"{sum(row.calls for row in rows):,} operators"]
    copies = sum(row.calls for row in rows if row.name.startswith(COPIES))
    by_host = [each for each in entries if each.device_type == DeviceType.CPU]
    launches, waits = (sum(each.count for each in by_host if each.key.startswith(names)) for names in (LAUNCHES, WAITS))
    kernels = sum(row.calls for row in rows) - copies
    return [f"{kernels:,} kernels", f"{copies:,} copies", f"{launches:,} launches", f"{waits:,} waits of the host"]


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


if __name__ == "__main__":
    program.run(main)
