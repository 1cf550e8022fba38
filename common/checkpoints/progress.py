"""How far a training has come, as its checkpoints record it."""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.program import UserError, shown

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """The state of the loop; with the weights, the optimizer and the random states it is all there is."""

    iteration: int = 0
    "Steps behind the weights, those of the run they were finetuned from included."
    first_iteration: int = 0
    "The iteration at which this run began."
    epoch: int = 0
    "The epoch the next step belongs to."
    clips: int = 0
    "Clips of this epoch that all processes together have seen."
    finetuned_from: str = ""
    "The checkpoint that gave the first weights."
    case: str = "acc"
    "acc, or perf for a speed measurement, from which no other run continues."
    run: int = 0
    "Runs in a directory are numbered from 1 in the order in which they began; 0 in checkpoints older than this field."
    started: float = field(default_factory=time.time)
    "When this run began, in seconds since 1970. Tells runs numbered 0 apart; clocks may be set back, numbers are not."
    losses: list[float] = field(default_factory=list)
    "The training loss of every step, skipped ones (nan) and those of the run it was finetuned from included."
    validation_losses: list[tuple[int, float]] = field(default_factory=list)
    "(iteration, validation loss)."

    @property
    def steps(self) -> int:
        """Steps of this run."""
        return self.iteration - self.first_iteration

    @property
    def which_run(self) -> tuple[int, float]:
        """Sorts runs in a directory: a later run compares greater."""
        return self.run, self.started


COUNTS = ("iteration", "first_iteration", "epoch", "clips", "run")
TEXTS = ("finetuned_from", "case")


def read_progress(path: str | Path, values: Any) -> Progress:
    """The progress in a checkpoint. UserError that names the field if it is not valid.

    An unknown field, as a newer version may have one, is left out with a warning.
    """
    if not isinstance(values, dict):
        raise UserError(f"{path}: its progress is {shown(values)}, must be an object")
    known = Progress.__dataclass_fields__.keys()
    for name in values.keys() - known:
        log.warning("%s: progress.%s is not known here and ignored; is it from a newer version?", path, shown(name))
    given = {name: value for name, value in values.items() if name in known}
    for name, value in given.items():
        if not _fits(name, value):
            raise UserError(f"{path}: progress.{name} is {shown(value)}, which is not valid")
    progress = Progress(**given)
    if progress.first_iteration > progress.iteration:
        raise UserError(f"{path}: progress.first_iteration {progress.first_iteration} is above the iteration")
    return progress


def _fits(name: str, value: Any) -> bool:
    if name in COUNTS:
        return _is_count(value)
    if name in TEXTS:
        return isinstance(value, str)
    if name == "started":
        return type(value) in (int, float) and math.isfinite(value)
    if not isinstance(value, list):
        return False
    if name == "losses":
        return all(type(loss) is float for loss in value)
    return all(
        isinstance(pair, tuple | list) and len(pair) == 2 and _is_count(pair[0]) and type(pair[1]) is float
        for pair in value
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
