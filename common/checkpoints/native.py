"""Checkpoints: written whole, found again, read without running anything in them."""

import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import torch

from common.checkpoints.reading import read_contents
from common.files import written_whole
from common.program import UserError

log = logging.getLogger(__name__)

REQUIRED = {"model", "config", "iteration", "progress"}


def checkpoint_path(directory: str | Path, name: str, iteration: int) -> Path:
    """``<directory>/<name>_<iteration>``, as in the Ascend port."""
    return Path(directory) / f"{name}_{iteration}"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` whole or not at all. UserError where the disk does not take it."""
    try:
        with written_whole(path) as file:
            torch.save(state, file)
            keep_earlier(Path(os.path.realpath(path)))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot save {path}: {reason}; the earlier checkpoints are untouched") from error


def keep_earlier(path: Path) -> None:
    """Give a checkpoint that another run left under this name a dated name, too, before it is replaced."""
    if not path.is_file():
        return
    dated = path.with_name(f"{path.name}.{time.strftime('%Y-%m-%d_%H-%M-%S')}")
    while dated.exists():
        dated = dated.with_name(f"{dated.name}_")
    try:
        os.link(path, dated)
    except OSError:  # not every file system knows links
        path.rename(dated)
    log.info("%s was left by another run and is now %s", path, dated.name)


def load(path: str | Path, with_tensors: bool = True) -> dict[str, Any]:
    """Read a checkpoint of this repository onto the CPU; unless ``with_tensors``, its tensors have no data.

    UserError if it is missing, damaged or something else; nothing in it is executed.
    """
    state = read_contents(path, with_tensors)
    if not isinstance(state, dict) or not state.keys() >= REQUIRED:
        raise UserError(f"{path} is no checkpoint of this repository: it lacks some of {', '.join(sorted(REQUIRED))}")
    return state


def newest_first(directory: str | Path, name: str) -> list[Path]:
    """The checkpoints in the directory, highest iteration first."""
    found = ((re.fullmatch(rf"{name}_(\d+)", path.name), path) for path in Path(directory).glob(f"{name}_*"))
    return [path for _, path in sorted(((int(match[1]), path) for match, path in found if match), reverse=True)]
