"""Kill a training run at random moments, again and again, while it saves after every step.

    python test/kill_and_resume.py [--kills=100]

After each kill every checkpoint must load, and the next start must go on from the newest. In the end
the weights must be those of a run that was left alone. Exit code 0 if all of that holds, else 1.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common.checkpoints import native
from common.training.run import Progress

CONFIG = {
    "train_config": {
        "batch_size": 2, "epochs": 10**6, "iters_per_checkpoint": 1, "iters_per_validation": 10**6, "workers": 0,
        "learning_rate": 1e-3, "keep_checkpoints": 3, "with_tensorboard": False,
    },
    "data_config": {"segment_length": 2048},
    "waveglow_config": {"n_mel_channels": 6, "n_flows": 2, "WN_config": {"n_layers": 2, "n_channels": 8}},
}  # fmt: skip
LONGEST_LIFE = 1.0
"Seconds after its first step that a run lives at most."
PATIENCE = 120
"Seconds to wait for a step."


def train(folder: Path, corpus: str, name: str, *options: str) -> None:
    """waveglow.train, in a process of its own, with its output and log in ``<folder>/<name>``."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.argv = [
        "train", f"--config={folder / 'config.json'}", f"--data_path={corpus}", "--device=cpu",
        f"--output_directory={folder / name}", f"--log_directory={folder / name}", *options,
    ]  # fmt: skip
    from common import program
    from waveglow import train

    program.run(train.main)


def checkpoints(output: Path) -> list[int]:
    """The iterations of the checkpoints, all of which must load."""
    states = [native.load(path) for path in native.newest_first(output, "waveglow")]
    return [Progress(**state["progress"]).iteration for state in states]


def kill_once(context: multiprocessing.context.BaseContext, folder: Path, corpus: str, rng: random.Random) -> int:
    """Let the run live until it has made a step and a random while more; the newest iteration on the disk."""
    output, log = folder / "killed", folder / "killed/0/train_0.log"
    steps = lambda: log.read_text().count("\tloss:") if log.exists() else 0  # noqa: E731
    before = steps()
    process = context.Process(target=train, args=(folder, corpus, "killed"))
    process.start()
    deadline = time.monotonic() + PATIENCE
    while steps() == before:
        if not process.is_alive() or time.monotonic() > deadline:
            raise SystemExit(f"the run does not go on:\n{log.read_text()[-2000:]}")
        time.sleep(0.002)
    time.sleep(rng.uniform(0, LONGEST_LIFE))
    process.kill()
    process.join()
    return max(checkpoints(output), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--data_path", default=str(Path(__file__).parent / "data/corpus"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for such a small model
    os.environ["PYTHONWARNINGS"] = "ignore"  # about the semaphores that the killed leave
    # Forked from a process that has imported everything: a start takes no seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["waveglow.train"])
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        newest = 0
        for kill in range(1, args.kills + 1):
            before, newest = newest, kill_once(context, folder, args.data_path, rng)
            if newest < before:
                raise SystemExit(f"kill {kill}: iteration {before} was there, now the newest is {newest}")
            left = len(list((folder / "killed").glob(".*.part")))
            print(f"kill {kill}: goes on from iteration {newest}{', one half written' if left else ''}", flush=True)
        for name in ("killed", "alone"):
            process = context.Process(target=train, args=(folder, args.data_path, name, f"--max_steps={newest + 3}"))
            process.start()
            process.join()
        killed, alone = (native.load(folder / name / f"waveglow_{newest + 3}") for name in ("killed", "alone"))
        if not all(torch.equal(killed["model"][name], alone["model"][name]) for name in alone["model"]):
            raise SystemExit("the weights are not those of a run that was left alone")
        if list((folder / "killed").glob(".*.part")):
            raise SystemExit("something half written is left over")
    print(f"{args.kills} kills, {newest + 3} steps: every checkpoint loads, the weights are those of one run")


if __name__ == "__main__":
    main()
