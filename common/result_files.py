"""The result of a run in the form of the Ascend port's scripts."""

import argparse
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from common.files import written_whole
from common.log import console


@dataclass
class Results:
    """Results that the scripts of test/ print and write at the end."""

    network: str
    rank_size: int
    batch_size: int
    case: str
    "acc, or perf for a speed measurement."
    fps: float
    "Clips per second of all processes together."
    samples_per_second: float
    "Audio samples per second of all processes together."
    iteration_seconds: float
    "Mean duration of a step."
    losses: list[float]
    "One for each step."

    @property
    def case_name(self) -> str:
        return f"{self.network}_bs{self.batch_size}_{self.rank_size}p_{self.case}"

    def lines(self, seconds: int) -> list[str]:
        """``Key = value`` in the Ascend port's order, then the keys it does not have."""
        values = {
            "Network": self.network,
            "RankSize": self.rank_size,
            "BatchSize": self.batch_size,
            "DeviceType": platform.machine(),
            "CaseName": self.case_name,
            "ActualFPS": f"{self.fps:.4f}",
            "TrainingTime": f"{self.iteration_seconds * 1000:.2f}",
            "TrainAccuracy": f"{self.losses[-1]:.9f}",
            "ActualLoss": f"{self.losses[-1]:.9f}",
            "E2ETrainingTime": seconds,
            "ActualSamplesPerSec": f"{self.samples_per_second:.1f}",
        }
        return [f"{key} = {value}" for key, value in values.items()]

    def write(self, args: argparse.Namespace) -> None:
        """Write the result files beside the log and print the final lines, if --log_directory asks for it."""
        if not args.log_directory:
            return
        seconds = round(time.time()) - args.started if args.started else 0
        number = args.device_id if self.rank_size == 1 else 0
        folder = Path(args.log_directory, str(number))
        with written_whole(folder / f"{self.case_name}.log") as file:
            file.write("".join(f"{line}\n" for line in self.lines(seconds)).encode())
        with written_whole(folder / f"train_{self.case_name}_loss.txt") as file:
            file.write("".join(f"{loss:.9f}\n" for loss in self.losses).encode())
        console.say("------------------ Final result ------------------")
        console.say(f"Final Performance images/sec : {self.fps:.4f}")
        console.say(f"Final Train Accuracy : {self.losses[-1]:.9f}")
        console.say(f"E2E Training Duration sec : {seconds}")
