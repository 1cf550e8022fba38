"""Configuration files, and configurations in checkpoints, read into the dataclasses of ``common.config``.

Why not msgspec: it checks types as strictly, but passes over a key that a dataclass does not have (0.22). Here that is
an error which names the nearest known key.
"""

import dataclasses
import difflib
import json
import logging
import os
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common.config_fields import check_type
from common.files import open_input
from common.program import UserError, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

LARGEST_FILE = 2**20
"Bytes of a configuration file."
FILES = ("symbols", "training_files", "validation_files")
"Keys of data_config that may name a file."

Section = TypeVar("Section", bound="DataclassInstance")


def load_config(path: str | Path, kind: type[Section]) -> Section:
    """Read a JSON file into the dataclass ``kind``.

    Raises UserError that names the file and the field: no such file, not JSON, an unknown key
    (with the nearest known one), a value of another type or out of range.
    """
    values = read_json(path)
    try:
        return from_dict(kind, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_json(path: str | Path) -> Any:
    """The contents of a configuration file, in which names of files in its own folder have got that folder.

    UserError, with its name, if it cannot be read or is not JSON.
    """
    try:
        with open_input(path) as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{path} is no configuration: it has more than {LARGEST_FILE} bytes")
        return _with_files_beside(Path(path).parent, json.loads(content.decode("utf-8-sig")))
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} is no configuration: its brackets are nested too deeply") from error


def _with_files_beside(folder: Path, values: Any) -> Any:
    """Who starts a script elsewhere still means the files beside the configuration."""
    if isinstance(values, dict) and isinstance(data := values.get("data_config"), dict):
        for name in FILES:
            if isinstance(file := data.get(name), str) and os.path.isfile(folder / file):
                data[name] = str(folder / file)
    return values


def config_of_checkpoint(path: str | Path, kind: type[Section], values: Any) -> Section:
    """The configuration in a checkpoint, read into the dataclass ``kind``.

    An unknown key, as a newer version may have one, is left out with a warning. UserError, with the file's name, for
    everything else that ``load_config`` refuses.
    """
    unknown: list[str] = []
    try:
        config = from_dict(kind, values, unknown=unknown)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    for name in unknown:
        log.warning("%s: %s is not known here and ignored; is it from a newer version?", path, name)
    return config


def from_dict(kind: type[Section], values: Any, where: str = "", unknown: list[str] | None = None) -> Section:
    """Build the dataclass ``kind`` from a dict, dataclasses inside it too; UserError as ``load_config``.

    With a list ``unknown``, unknown keys are added to it and are no error.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where or 'the config'} must be an object {{...}}, not {shown(values)}")
    hints = typing.get_type_hints(kind)
    given = {}
    for key, value in values.items():
        if key not in hints and unknown is not None:
            unknown.append(f"{where or 'the config'}: {shown(key)}")
            continue
        if key not in hints:
            near = difflib.get_close_matches(str(key)[:100], hints, n=1)
            raise UserError(
                f"{where or 'the config'} has the unknown key {shown(key)}"
                + (f", perhaps {near[0]!r}?" if near else f"; known are {', '.join(hints)}")
            )
        name = f"{where}.{key}" if where else key
        given[key] = from_dict(hints[key], value, name, unknown) if dataclasses.is_dataclass(hints[key]) else value
        check_type(name, given[key], hints[key])
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in given and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where or 'the config'} lacks {', '.join(missing)}")
    return kind(**given)
