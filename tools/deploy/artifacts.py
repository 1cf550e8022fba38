"""A folder of graphs or of engines: what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config_reading import from_dict
from common.files import make_output_folder, open_input, remove_leftovers, written_whole
from common.program import UserError, WriteError
from common.voices import sha256
from tools.deploy import commands
from tools.deploy.signatures import Signature, tacotron2_signatures, waveglow_signatures

if TYPE_CHECKING:  # they load PyTorch, which takes seconds
    import tacotron2.config
    import waveglow.config

CONTENTS = "contents.json"
ONNX = "onnx"
UNFINISHED = ".unfinished"
"The folder of what is being made, inside of the one that gets it."
FORM = 4
"Version of the format of CONTENTS; another one belongs to another version of this repository."

Ranges = dict[str, list[int]]
"Smallest, usual and largest size of each named axis."


@dataclass(frozen=True)
class Source:
    """Weights that graphs or engines were made from."""

    path: str
    "The checkpoint, or ``checkpoints.RANDOM``."
    sha256: str = ""
    "Its SHA-256; empty for random weights."


@dataclass(frozen=True)
class File:
    """A graph's file."""

    name: str
    bytes: int
    sha256: str


@dataclass
class Contents:
    """Contents of a folder of graphs or engines, kept in it as JSON."""

    engine: str
    "The engine that can run it; 'onnx' for graphs that are still to be built."
    sources: dict[str, Source]
    "Model -> its weights."
    tacotron2: tacotron2.config.Config
    "The configurations; the file has only their sections that say what a model is."
    waveglow: waveglow.config.Config
    opset: int
    "The set of ONNX's operators that the exported graphs are written in."
    sigma: float
    "Scale of WaveGlow's noise with which the voice sounds best."
    files: dict[str, File] = field(default_factory=dict)
    "Graph -> its file."
    quant_mode: str = ""
    "Quant mode of engines."
    made_of: dict[str, str] = field(default_factory=dict)
    "Engines only: graph -> SHA-256 of the exported graph that it was built from."
    ranges: Ranges = field(default_factory=dict)
    "Engines only: the sizes that they are built for."
    options: dict[str, Any] = field(default_factory=dict)
    "Engines only: the engine's own, see ``gen_model.settings``."
    exported_by: list[str] = field(default_factory=list, compare=False)
    "The options of the export that name the checkpoints and say something of them."
    built_by: list[str] = field(default_factory=list, compare=False)
    "Engines only: the options of the build that name files."
    cost: dict[str, float] = field(default_factory=dict)
    "Engines only: model -> distance of its mel spectrograms from those of the exported graphs."

    def signature(self, graph: str) -> Signature:
        """Inputs and outputs of a graph."""
        return (tacotron2_signatures(self.tacotron2) | waveglow_signatures(self.waveglow))[graph]

    def check_range(self, axis: str, size: int, what: str, how: str = "") -> None:
        """UserError, if the engines were not built for this size; ``how`` is a way out."""
        smallest, _, largest = self.ranges[axis]
        if not smallest <= size <= largest:
            way_out = f": {how}" if how else ""
            raise UserError(f"{what} is {size}, and these engines are built for {smallest} to {largest}{way_out}")

    def again(self, folder: Path) -> str:
        """The command that makes what is in this folder."""
        if self.engine == ONNX:
            return commands.export(folder.parent, self.exported_by, self.opset)
        return self.build_command(folder, self.ranges["batch"])

    def build_command(self, folder: Path, batches: list[int]) -> str:
        """The command that builds this folder's engines for these batches; DIR, if it does not lie with the graphs."""
        models_dir, output = folder.parent, None
        if engine_folder(models_dir, self.engine, self.quant_mode) != folder:
            models_dir, output = models_dir if (models_dir / ONNX).is_dir() else Path("DIR"), folder
        return commands.build(self.engine, self.quant_mode, batches, models_dir, output, self.built_by)

    def add(self, folder: Path, graph: str, name: str) -> None:
        """Take note of a graph's file, once it is written."""
        path = folder / name
        self.files[graph] = File(name, path.stat().st_size, sha256(path))

    def path(self, folder: Path, graph: str) -> Path:
        """Path of a graph's file. UserError if it is missing or not the one that was written, to the last bit."""
        if graph not in self.files:
            raise UserError(f"{folder} has no {graph}: it holds {', '.join(self.files)}")
        file = self.files[graph]
        path = folder / file.name
        if not path.is_file():
            raise UserError(f"{path} is missing, make it again: {self.again(folder)}")
        size = path.stat().st_size
        if size < file.bytes:
            raise UserError(
                f"{path} is truncated, {size} bytes instead of {file.bytes}, make it again: {self.again(folder)}"
            )
        if size > file.bytes or sha256(path) != file.sha256:
            raise UserError(
                f"{path} is not what was made here (by its size or SHA-256), make it again: {self.again(folder)}"
            )
        return path


def as_json(contents: Contents) -> str:
    """The reverse of ``from_json``."""
    values = asdict(contents)
    for kind in ("tacotron2", "waveglow"):
        values[kind] = {name: values[kind][name] for name in (f"{kind}_config", "data_config")}
    return json.dumps({"form": FORM, "checksum": checksum(values)} | values, indent=2)


def from_json(text: str) -> Contents:
    """UserError, ValueError, KeyError, TypeError or AttributeError for anything but contents of this version."""
    import tacotron2.config
    import waveglow.config

    values = json.loads(text)
    if values.pop("form", None) != FORM:
        raise UserError("it is of another version of this repository")
    if values.pop("checksum", "") != checksum(values):
        raise UserError("it is damaged, or was changed by hand: its checksum is another one")
    values["tacotron2"] = from_dict(tacotron2.config.Config, values["tacotron2"])
    values["waveglow"] = from_dict(waveglow.config.Config, values["waveglow"])
    values["sources"] = {kind: from_dict(Source, each) for kind, each in values["sources"].items()}
    values["files"] = {graph: from_dict(File, each) for graph, each in values["files"].items()}
    return Contents(**values)


def checksum(values: dict[str, Any]) -> str:
    """SHA-256 of contents, so that no bit of a size or of a symbol can change."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextmanager
def renewed(folder: Path) -> Iterator[Path]:
    """A folder to make new files and contents in, which take the place of those in ``folder`` when all are there.

    Until then, and if the body fails, what is there stays as it was. Only for who holds the folder's lock.
    """
    new = make_output_folder(folder) / UNFINISHED
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    remove_leftovers(folder)
    new.mkdir()
    try:
        yield new
        (folder / CONTENTS).unlink(missing_ok=True)  # a folder without them is not used
        for path in sorted(new.iterdir(), key=lambda path: path.name == CONTENTS):
            put(path, folder / path.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def put(path: Path, place: Path) -> None:
    """Move a file to its place. WriteError, if a folder is there, say."""
    try:
        os.replace(path, place)
    except OSError as error:
        raise WriteError(error.errno, error.strerror, str(place)) from error


def write_contents(folder: Path, contents: Contents) -> None:
    """Written last of all: a folder that has them is complete."""
    with written_whole(folder / CONTENTS) as file:
        file.write(as_json(contents).encode())


def read_contents(folder: Path, engine: str, how: str) -> Contents:
    """UserError if there are none, or they are of another engine; ``how`` says how to make them."""
    try:
        contents = read_any_contents(folder, how)
    except FileNotFoundError as error:
        raise UserError(f"nothing for {engine} in {folder}: {how}") from error
    if contents.engine != engine:
        raise UserError(f"{folder} is for {contents.engine}, not for {engine}: {how}")
    return contents


def read_any_contents(folder: Path, how: str) -> Contents:
    """Those of graphs or of any engine. FileNotFoundError if there are none; UserError if they cannot be used."""
    try:
        with open_input(folder / CONTENTS) as file:
            return from_json(file.read().decode())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{folder / CONTENTS} cannot be used ({error}): {how}") from error


def read_exported(models_dir: Path) -> Contents:
    """The exported graphs. UserError if there are none."""
    return read_contents(models_dir / ONNX, ONNX, commands.export(models_dir))


def engine_folder(models_dir: Path, engine: str, quant_mode: str) -> Path:
    """The default folder for engines."""
    return models_dir / f"{engine}_{quant_mode}"
