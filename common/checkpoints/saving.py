"""Checkpoints written in the background; the last few and the best are kept."""

import logging
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.checkpoints import native
from common.program import UserError

log = logging.getLogger(__name__)


@dataclass
class Saved:
    """A checkpoint of this run."""

    path: Path
    validation_loss: float
    "The last validation loss before it was written; nan if there was none."


class Saver:
    """Writes the checkpoints of one run, one at a time, in a thread.

    ``save`` takes as long as copying the tensors. Where the disk is slower than the training, the
    checkpoint that still waits for it gives way to the next one.
    """

    def __init__(self, keep: int, on_error: str, saved: list[Saved]):
        """``keep``: how many stay beside the best, 0 = all; ``on_error``: stop or continue;
        ``saved``: what the run wrote before, the oldest first."""
        self.keep = keep
        self.on_error = on_error
        self.saved = saved
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future | None = None
        self._failure: UserError | None = None

    def save(self, path: Path, state: dict[str, Any], validation_loss: float) -> None:
        """Write ``state`` in the background, as it is now."""
        snapshot = copied_to_host(state)
        if self._last and self._last.cancel():
            log.warning("the disk does not keep up: the checkpoint before %s is left out", path.name)
        self._last = self._thread.submit(self._write, Saved(path, validation_loss), snapshot)

    def check(self) -> None:
        """UserError if a checkpoint could not be written and ``on_error`` is stop."""
        if self._failure and self.on_error == "stop":
            raise self._failure

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        """Wait for what is still to be written. UserError if the last checkpoint is not on the disk."""
        self._thread.shutdown()
        if self._failure and not error_type:
            raise self._failure

    def _write(self, new: Saved, state: dict[str, Any]) -> None:
        try:
            native.save(new.path, state)
        except UserError as error:
            self._failure = error
            if self.on_error == "continue":
                log.error("%s; training goes on", error)
            return
        self._failure = None
        self.saved = [saved for saved in self.saved if saved.path != new.path] + [new]
        best = min(self.saved, key=lambda saved: (math.isnan(saved.validation_loss), saved.validation_loss))
        log.info("saved %s%s", new.path, ", the best so far" if best is new else "")
        for old in self.saved[: -self.keep] if self.keep else []:
            if old is not best:
                old.path.unlink(missing_ok=True)
                self.saved.remove(old)


def copied_to_host(value: Any) -> Any:
    """A copy of nested dicts and lists whose tensors are on the CPU and share no memory with others."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied_to_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied_to_host, value))
    return value
