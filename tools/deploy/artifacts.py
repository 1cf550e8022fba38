"""A folder of graphs or of engines: what is in it, and one writer at a time."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.config import from_dict
from common.files import written_whole
from common.program import Parser, UserError
from tools.deploy.graphs import Port, Signature

CONTENTS = "contents.json"
ONNX = "onnx"


@dataclass
class Contents:
    """Contents of a folder of graphs or engines, kept in it as JSON."""

    engine: str
    "The engine that can run it; 'onnx' for graphs that are still to be built."
    sources: dict
    "Model -> the checkpoint it came from."
    sizes: dict
    "Model -> ``models.Model.sizes``."
    signatures: dict
    "Graph -> its ``Signature``."
    files: dict = field(default_factory=dict)
    "Graph -> the file's name and size in bytes."
    quant_mode: str = ""
    "Quant mode of engines."
    ranges: dict = field(default_factory=dict)
    "Engines only: smallest, usual and largest size of each named axis."
    options: dict = field(default_factory=dict)
    "Engines only: how they were built and how to run them."
    cost: dict = field(default_factory=dict)
    "Engines only: model -> distance of its mel spectrograms from those of the exported graphs."

    def signature(self, graph: str) -> Signature:
        """Inputs and outputs of a graph."""
        ports = self.signatures[graph]
        inputs, outputs = (
            {name: Port(tuple(port["axes"]), port["dtype"]) for name, port in ports[side].items()}
            for side in ("inputs", "outputs")
        )
        return Signature(inputs, outputs)

    def check_range(self, axis: str, size: int, what: str) -> None:
        """UserError, if the engines were not built for this size."""
        smallest, _, largest = self.ranges[axis]
        if not smallest <= size <= largest:
            raise UserError(
                f"{what} is {size}, and these engines are built for {smallest} to {largest}:"
                " choose another, or build others with gen_model/run.sh"
            )

    def add(self, folder: Path, graph: str, name: str) -> None:
        """Take note of a graph's file, once it is written."""
        self.files[graph] = {"name": name, "bytes": (folder / name).stat().st_size}

    def path(self, folder: Path, graph: str) -> Path:
        """Path of a graph's file. UserError if it is missing or damaged."""
        if graph not in self.files:
            raise UserError(f"{folder} has no {graph}: it holds {', '.join(self.files)}")
        path = folder / self.files[graph]["name"]
        if not path.is_file():
            raise UserError(f"{path} is missing, build it again")
        size, expected = path.stat().st_size, self.files[graph]["bytes"]
        if size != expected:
            what = "truncated" if size < expected else "not what was built here"
            raise UserError(f"{path} is {what}: {size} bytes instead of {expected}; build it again")
        return path


def write_contents(folder: Path, contents: Contents) -> None:
    """Last of all: a folder with them is complete."""
    with writing(folder), written_whole(folder / CONTENTS) as file:
        file.write(json.dumps(asdict(contents), indent=2).encode())


def read_contents(folder: Path, engine: str, how: str) -> Contents:
    """UserError if there are none, or they are of another engine; ``how`` says how to make them."""
    try:
        contents = from_dict(Contents, json.loads((folder / CONTENTS).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"nothing for {engine} in {folder}: {how}") from error
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{folder / CONTENTS} is damaged ({error}): {how}") from error
    if contents.engine != engine:
        raise UserError(f"{folder} is for {contents.engine}, not for {engine}: {how}")
    return contents


def add_models_dir(parser: Parser) -> None:
    """``--models_dir``, by default what env.sh says."""
    default = Path(os.environ.get("MODEL_PATH") or Path(__file__).parent / "models")
    what = "folder of checkpoints, graphs and engines (default: $MODEL_PATH, else tools/deploy/models)"
    parser.add_argument("--models_dir", type=Path, metavar="DIR", default=default, help=what)


def engine_folder(models_dir: Path, engine: str, quant_mode: str) -> Path:
    """Where engines go that nobody gave a folder for."""
    return models_dir / f"{engine}_{quant_mode}"


@contextmanager
def sole_writer(*folders: Path) -> Iterator[None]:
    """The only process that writes to these folders, which are there; UserError if there is another one."""
    with ExitStack() as stack:
        for folder in {folder.resolve() for folder in folders}:
            lock = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:  # not every file system knows locks
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise UserError(f"another run is writing to {folder}: wait, or choose another folder") from error
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """UserError for what the disk refuses: it is full, say, or a folder has the name of a file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
