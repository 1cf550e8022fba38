"""The contents of a checkpoint file, whatever its form, without running anything in it."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from common.checkpoints import restricted_pickle
from common.checkpoints.budget import RefusedError
from common.files import open_input
from common.program import UserError


def read_contents(path: str | Path, with_tensors: bool = True) -> Any:
    """What torch.save or safetensors put into the file; instances of unknown classes become shells.

    Unless ``with_tensors``, the tensors have no data. UserError if the file is missing, damaged (checked by the CRCs of
    torch's archives) or no file, or if it would run code or take the machine down.
    """
    try:
        with open_input(path) as file:
            if file.read(9)[8:] == b"{":
                return _read_safetensors(path)
            return restricted_pickle.load(file, with_tensors)
    except FileNotFoundError as error:
        raise UserError(f"no checkpoint at {path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name a checkpoint in it, such as {path}/waveglow_1000") from error
    except UserError:
        raise
    except RefusedError as refused:
        raise UserError(f"{path} is refused: {refused}; nothing in it was run") from refused
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged file raises nearly anything
        if "CRC" in str(error):
            raise UserError(f"{path} is damaged: {error}") from error
        raise UserError(f"{path} is truncated or no checkpoint") from error


def _read_safetensors(path: str | Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        contents = {"model": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118 - no dict
    for name in {"config", "iteration"} & metadata.keys():
        contents[name] = json.loads(metadata[name])
    return contents
