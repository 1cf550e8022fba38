"""Train on for long while things go wrong every few minutes, and watch memory and open files.

    python test/soak.py --steps=2000 --every=180

Two processes train WaveGlow's demo configuration by test/train_full_8p.sh. In turn a process is killed, the disk is
full (a small file system of its own, in memory, which root may mount), and a process hangs. After each the run is
started again, and must go on from a checkpoint. In the end it must have come to the last step, with finite losses, and
memory and open files must not have grown from the first half of the measurements to the second. Figures and a plot go
to test/output/soak; stopped, it goes on where it was. Exit code 0 if all of that holds, else 1.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.checkpoints import native  # noqa: E402 - from the root

FOLDER = ROOT / "test/output/soak"
DISK = 2**30
"Bytes of the file system for the output: some checkpoints of 180 MB."
FAULTS = ("kill", "full disk", "hang")
HANG_LIMIT = 60
LOOK = 5.0
"Seconds from one measurement to the next."
GROWTH = 1.1
"Largest ratio of the second half's median to the first's."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument("--every", type=float, default=180, metavar="SECONDS", help="between faults: %(default)s")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what is mounted and started ends with it
    FOLDER.mkdir(parents=True, exist_ok=True)
    config = json.loads((ROOT / "configs/waveglow_demo.json").read_text())
    config["train_config"] |= {"iters_per_checkpoint": 25, "iters_per_validation": 100, "keep_checkpoints": 1}
    config["train_config"] |= {"max_steps": args.steps, "decay_steps": args.steps}
    (FOLDER / "config.json").write_text(json.dumps(config))
    with small_disk(FOLDER / "disk") as disk:
        soak(disk, args.steps, args.every)
        print(verdict(disk, args.steps))
    plot(measurements(), FOLDER / "soak.png")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of ``DISK`` bytes; what is on it is kept aside in between."""
    kept = folder.with_name("kept")
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "soak", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise SystemExit("no small file system can be mounted here: run this as root")
    try:
        if kept.exists():
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield folder
    finally:
        (folder / "filler").unlink(missing_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        subprocess.run(["umount", "-l", folder], check=True)


def soak(disk: Path, steps: int, every: float) -> None:
    """Until the last step is saved."""
    faults = len([each for each in events() if each["event"] in FAULTS])
    rng = random.Random(faults)
    while newest(disk) < steps:
        before = newest(disk)
        run, due = start(disk), time.monotonic() + every * rng.uniform(0.7, 1.3)
        fault = ""
        try:
            while run.poll() is None:
                time.sleep(LOOK)
                settled = newest(disk) > before  # it has done all that a run does, validation and saving included
                measure(disk, settled)
                if not fault and time.monotonic() > due and settled:
                    fault = FAULTS[faults % len(FAULTS)]
                    faults += 1
                    note(fault, disk)
                    bring_about(fault, disk, rng)
        finally:
            run.terminate()
            run.wait(2 * HANG_LIMIT)  # stopped, it saves
        (disk / "filler").unlink(missing_ok=True)
        last = (run.stderr.read().strip().splitlines() or ["no error"])[-1]
        note("end", disk, code=run.returncode, said=last)
        if not fault and run.returncode:
            raise SystemExit(f"the run ended without a fault of ours: {last}")
        if newest(disk) < before:
            raise SystemExit(f"iteration {before} was saved, now the newest is {newest(disk)}")


def start(disk: Path) -> subprocess.Popen:
    command = [
        "bash", ROOT / "test/train_full_8p.sh", "--nproc=2", f"--config={FOLDER / 'config.json'}", "--device=cpu",
        f"--data_path={ROOT / 'test/data/corpus'}", f"--output_directory={disk / 'out'}", f"--hang_limit={HANG_LIMIT}",
        "--workers=1",
    ]  # fmt: skip
    note("start", disk)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def bring_about(fault: str, disk: Path, rng: random.Random) -> None:
    victims = list(ranks(disk))
    if fault == "full disk":
        with suppress(OSError), open(disk / "filler", "wb") as file:
            while True:
                file.write(bytes(2**12))
                file.flush()
    elif victims:
        os.kill(rng.choice(victims), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)


def ranks(disk: Path) -> dict[int, int]:
    """The processes that train: process id -> rank. Their loaders have another parent."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if f"--output_directory={disk / 'out'}" not in words or "common.launch" in words or "bash" in words[0]:
                continue
            environment = (folder / "environ").read_text()
            launcher = re.search(r"\0LAUNCHER_PID=(\d+)", environment)
            parent = re.search(r"^PPid:\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)
            if launcher and parent and launcher[1] == parent[1]:
                found[int(folder.name)] = int(re.search(r"\0RANK=(\d+)", environment)[1])
    return found


def measure(disk: Path, settled: bool) -> None:
    """Note memory and open files of each rank, and whether they are to be compared."""
    for process, rank in ranks(disk).items():
        with suppress(OSError):
            folder = Path(f"/proc/{process}")
            memory = int(re.search(r"VmRSS:\s+(\d+)", (folder / "status").read_text())[1]) * 1024
            files = len(list((folder / "fd").iterdir()))
            note("look", disk, rank=rank, process=process, settled=settled, memory=memory, files=files)


def newest(disk: Path) -> int:
    """The iteration of the last checkpoint; 0 = none."""
    found = native.newest_first(disk / "out", "waveglow")
    return int(found[0].name.rpartition("_")[2]) if found else 0


def note(event: str, disk: Path, **figures: object) -> None:
    line = {"event": event, "time": time.time(), "iteration": newest(disk), **figures}
    with open(FOLDER / "events.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    if event != "look":
        print(json.dumps(line), flush=True)


def events() -> list[dict]:
    path = FOLDER / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measurements() -> list[dict]:
    return [each for each in events() if each["event"] == "look"]


def verdict(disk: Path, steps: int) -> str:
    """What held; SystemExit that says what did not."""
    losses = native.load(disk / f"out/waveglow_{steps}")["progress"]["losses"]
    if len(losses) != steps or not all(map(math.isfinite, losses)):
        raise SystemExit(f"{len(losses)} losses for {steps} steps, or not all of them are finite")
    grown = [each for each in measurements() if each["settled"]]
    said = []
    for name in ("memory", "files"):
        halves = grown[: len(grown) // 2], grown[len(grown) // 2 :]
        first, second = (statistics.median(each[name] for each in half) for half in halves)
        said.append(f"{name} {first:.4g}, then {second:.4g}")
        if second > GROWTH * first:
            raise SystemExit(f"it grows: {said[-1]}")
    counts = {fault: len([each for each in events() if each["event"] == fault]) for fault in FAULTS}
    return f"{steps} steps; {counts}; medians of the first and the second half: {'; '.join(said)}"


def plot(looks: list[dict], path: Path) -> None:
    """Memory and open files of both ranks over time, and the faults."""
    from matplotlib.figure import Figure

    figure = Figure((7, 3.2), dpi=80, layout="constrained")
    axes = figure.subplots(2, sharex=True)
    began = events()[0]["time"]
    for rank in (0, 1):
        own = [each for each in looks if each["rank"] == rank]
        minutes = [(each["time"] - began) / 60 for each in own]
        axes[0].plot(minutes, [each["memory"] / 2**20 for each in own], ".", ms=2, label=f"rank {rank}")
        axes[1].plot(minutes, [each["files"] for each in own], ".", ms=2)
    for fault, color in zip(FAULTS, ("tab:red", "tab:purple", "tab:gray")):
        for each in (each for each in events() if each["event"] == fault):
            for axis in axes:
                axis.axvline((each["time"] - began) / 60, color=color, lw=0.8)
        axes[0].plot([], [], color=color, label=fault)
    axes[0].set_ylabel("memory, MiB")
    axes[1].set_ylabel("open files")
    axes[1].set_xlabel("minutes")
    for axis in axes:
        axis.set_ylim(0)
    axes[0].legend(fontsize=6, ncols=5, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
