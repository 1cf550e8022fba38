"""The user's scripts in a copy of the repository, and what they leave behind."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.checkpoints import native
from conftest import NPU, run_script

SAYS_THE_DEVICE = ("device: ", "npu patch: ", "precision: ", "optimizer: ")
"How the lines begin in which runs on two devices differ."


@dataclass
class Outcome:
    """What a script left behind."""

    code: int
    stdout: str
    stderr: str
    logs: list[str]
    "Of each rank."
    files: list[str]
    "In the first rank's log folder and in the output folder."
    result: list[str]
    "The result file's keys."

    @property
    def losses(self) -> list[float]:
        return [float(x) for x in re.findall(r"^\d+:\tloss:(\S+)\t", self.logs[0], re.MULTILINE)]


@dataclass
class Place:
    """A checkout with a corpus and configurations; all paths have blanks."""

    checkout: Path
    network: str = "WaveGlow"

    def run(self, script: str, output: str, *options: str, config: str = "", **environment: str) -> Outcome:
        logs = self.checkout / "test/output"
        config_option = [f"--config={self.checkout / config}.json"] if config else []
        paths = [f"--data_path={self.checkout}/a corpus", f"--output_directory={output}", *config_option]
        network = f"--network={self.network}"
        done = run_script(self.checkout, script, network, *paths, *options, timeout=500, **environment)
        return Outcome(
            done.returncode, done.stdout, done.stderr,
            logs=[path.read_text() for path in sorted(logs.glob("?/train_?.log"))],
            files=sorted(path.name for folder in (logs / "0", self.checkout / output) for path in folder.glob("*")),
            result=[line.partition(" = ")[0] for path in logs.glob("0/*p_*f.log") for line in path.open()],
        )  # fmt: skip

    def train(self, device: str, output: str, *more: str, config: str = "a config", **environment: str) -> Outcome:
        """Six steps on one card."""
        return self.run(
            "train_performance_1p.sh", output, f"--device={device}", "--epochs=9", "--max_steps=6", *more,
            config=config, **(NPU if device == "npu" else {}), **environment,
        )  # fmt: skip

    def load(self, name: str) -> dict:
        return native.load(self.checkout / name)


def form(text: str) -> list[str]:
    """The lines without numbers and paths, and without those that say the device. At the end those of checkpoints,
    which are written beside the training and come when they are done."""
    lines = [line for line in text.splitlines() if not line.startswith(SAYS_THE_DEVICE)]
    lines.sort(key=lambda line: line.startswith("saved "))
    return [re.sub(r"/\S.*/|-?\d[\d.]*|nan", "#", line) for line in lines]
