"""The common part of both models' evaluations: share out the inputs, gather the figures and write them."""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from common import distributed
from common.evaluation import page, pictures
from common.files import written_whole
from common.log import with_progress
from common.program import UserError
from common.training.agreement import checksum, digest
from common.training.run import Progress

Input = TypeVar("Input")
Result = TypeVar("Result")

MAY_DIFFER = {
    "inputs", "data_path", "pth_path", "output_directory", "log_directory", "started", "earlier", "debug",
    "mels_path", "training_files",
}  # fmt: skip
"Options that each machine has for itself."
CLIPS_ON_PAGE = 20
"Clips to see and hear; the table has all."


def shared_out(inputs: Sequence[Input], evaluate: Callable[[Input], Result]) -> list[Result]:
    """``evaluate`` of all inputs, each process at its share; every process gets all results, in order."""
    ranks = distributed.ranks()
    own = range(ranks.rank, len(inputs), ranks.world_size)
    results = {number: evaluate(inputs[number]) for number in with_progress(own, "synthesizing", len(own))}
    with distributed.naming_the_absent():
        gathered = distributed.gather_objects(results)
    everyones = {number: result for some in gathered for number, result in some.items()}
    return [everyones[number] for number in range(len(inputs))]


def facts_of_evaluation(args: argparse.Namespace, model: nn.Module, inputs: Iterable[Path]) -> dict[str, Any]:
    """What must be the same in all processes: options other than paths, weights, the clips by name."""
    if distributed.ranks().world_size == 1:
        return {}
    options = {f"--{name}": value for name, value in vars(args).items() if name not in MAY_DIFFER}
    return options | {
        "the sum of the weights": sum(checksum(tensor) for tensor in model.state_dict().values()),
        "the names of the clips": digest(path.name.encode() for path in inputs),
    }


def output_name(path: Path) -> str:
    """The name of a synthesized wav, as in the Ascend port."""
    return f"{path.stem}_synthesis.wav"


def check_outputs_differ(inputs: Iterable[Path], name: Callable[[Path], str] = output_name) -> None:
    """UserError if two inputs would become the same file, by default a wav."""
    seen: dict[str, Path] = {}
    for path in inputs:
        if other := seen.get(path.stem):
            raise UserError(f"{other} and {path} would both become {name(path)}: rename one")
        seen[path.stem] = path


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not nan; nan if there are none."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def plain(clip: Any) -> dict[str, Any]:
    """The figures of a dataclass for JSON, null where there is no number."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(clip).items()}


def write_json(path: Path, facts: dict[str, Any], overall: Any, clips: Iterable[Any]) -> None:
    """The facts and the figures of the dataclasses ``overall`` and ``clips``; null where there is no number."""
    content = facts | {"overall": plain(overall), "clips": [plain(clip) for clip in clips]}
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def clips_below(count: int) -> str:
    """The end of a page's note, if it lists more clips than it shows."""
    return f" The first {CLIPS_ON_PAGE} clips are below." if count > CLIPS_ON_PAGE else ""


def plot_training(training: Progress) -> str:
    """The loss curves that a checkpoint brings along, as a data URI."""
    curve = pictures.plot_losses(
        training.losses, training.validation_losses, training.iteration, training.first_iteration
    )
    return page.as_png(curve)


def describe_training(training: Progress) -> str:
    finetuned = f", finetuned from {training.finetuned_from}" if training.finetuned_from else ""
    return f"{training.iteration} iterations{finetuned}"
