"""Checkpoints: written whole, found again, read without running anything in them."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.files import written_whole
from common.program import UserError

REQUIRED = {"model", "config", "iteration", "progress"}


def checkpoint_path(directory: str | Path, name: str, iteration: int) -> Path:
    """``<directory>/<name>_<iteration>``, as the seed's users know it."""
    return Path(directory) / f"{name}_{iteration}"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` whole or not at all. UserError where the disk does not take it."""
    try:
        with written_whole(path) as file:
            torch.save(state, file)
    # torch wraps what the file system said into a RuntimeError of its own.
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else error
        raise UserError(f"cannot save {path}: {reason}; the earlier checkpoints are untouched") from error


def load(path: str | Path, lazily: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this repository onto the CPU; ``lazily``: tensors only when they are used.

    UserError if it is missing, truncated or something else; nothing in it is executed.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily and zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise UserError(f"no checkpoint at {path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name a checkpoint in it, such as {path}/waveglow_1000") from error
    except Exception as error:  # a damaged file raises nearly anything while it is unpickled
        raise UserError(f"{path} is truncated or no checkpoint of this repository") from error
    if not isinstance(state, dict) or not state.keys() >= REQUIRED:
        raise UserError(f"{path} is no checkpoint of this repository: it lacks some of {', '.join(sorted(REQUIRED))}")
    return state


def newest_first(directory: str | Path, name: str) -> list[Path]:
    """The checkpoints in the directory, that of the highest iteration first."""
    found = ((re.fullmatch(rf"{name}_(\d+)", path.name), path) for path in Path(directory).glob(f"{name}_*"))
    return [path for _, path in sorted(((int(match[1]), path) for match, path in found if match), reverse=True)]


def check_fits(path: str | Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """UserError that lists the differences, if the weights are not those of this model."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    differences = (
        [f"{name} missing" for name in own.keys() - given.keys()]
        + [f"{name} unexpected" for name in given.keys() - own.keys()]
        + [f"{name} {given[name]}, not {own[name]}" for name in own.keys() & given.keys() if given[name] != own[name]]
    )
    if differences:
        shown = "; ".join(sorted(differences)[:3]) + ("; ..." if len(differences) > 3 else "")
        raise UserError(f"{path} is of another model than the config: {len(differences)} weights differ ({shown})")
