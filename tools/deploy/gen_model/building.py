"""Exported graphs to a folder of engines."""

import importlib.util
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from common.checkpoints import TITLES
from common.files import make_output_folder, open_input, written_whole
from common.folder_lock import sole_writer
from common.log import still
from common.program import UserError
from common.voices import sha256
from tools.deploy.artifacts import ONNX, Contents, read_contents, read_exported, renewed, write_contents
from tools.deploy.engines.engine import Build, DeviceError, Engine, find_engine
from tools.deploy.gen_model.calibration import Heard, listen
from tools.deploy.gen_model.precision_cost import measure_cost
from tools.deploy.gen_model.settings import DECODERS, EngineSettings, Settings
from tools.deploy.infer_python.requests import pronunciations
from tools.deploy.signatures import kind_of

log = logging.getLogger(__name__)


@dataclass
class Order:
    """The engines to build."""

    engine: str
    quant_mode: str
    models_dir: Path
    "With the exported graphs in its folder onnx."
    folder: Path
    "For the engines."
    settings: Settings
    graphs: dict[str, Path] = field(default_factory=dict)
    "Graphs that replace the exported ones."
    json: Path | None = None
    "The file that the settings are from, if the user has named one."
    compare: bool = True
    "Whether to measure what the mode costs."

    def of_engine(self) -> EngineSettings:
        """The settings of the engine; a graph that the user names says how to decode."""
        chosen = [name for name in DECODERS if name in self.graphs]
        own = self.settings.engine(self.engine)
        return replace(own, decoder=chosen[0]) if len(chosen) == 1 else own

    def naming(self) -> list[str]:
        """The options that name the files, for a message."""
        files = self.graphs | ({"json": self.json} if self.json else {})
        return [f"--{name}={path.absolute()}" for name, path in files.items()]


def build(order: Order) -> Contents:
    """The engines of all graphs that are needed, made or found in the folder; others in it are replaced.

    What the mode costs is measured, if the device is there.
    """
    exported = read_exported(order.models_dir)
    pronunciations(exported.tacotron2)  # without it nothing can be spoken later
    engine = find_engine(order.engine)
    wanted = contents_of(order, exported, engine)
    make_output_folder(order.folder)
    with sole_writer(order.models_dir, order.folder):
        contents = whole(order.folder, wanted)
        if contents:
            log.info("kept the engines in %s, which are those wanted", order.folder)
        else:
            contents = wanted
            say_what(order, wanted)
            with renewed(order.folder) as new:
                write(order, exported, engine, contents, new)
            low, _, high = contents.ranges["batch"]
            log.info("wrote %s, for batches of %d to %d", order.folder, low, high)
        if order.compare and order.quant_mode != "force_float32" and not contents.cost:
            compare(order, contents, exported)
    return contents


def contents_of(order: Order, exported: Contents, engine: type[Engine]) -> Contents:
    """What the folder will hold, but for the files."""
    graphs = order.of_engine().graphs()
    check_own_graphs(order, exported, graphs if engine.takes_graphs else [])
    return replace(
        exported,
        engine=order.engine,
        files={},
        quant_mode=order.quant_mode,
        made_of={g: sha256(order.graphs[g]) if g in order.graphs else exported.files[g].sha256 for g in graphs},
        ranges=order.settings.sizes(),
        options=order.of_engine().options(),
        built_by=order.naming(),
    )


def whole(folder: Path, wanted: Contents) -> Contents | None:
    """The engines in the folder, if they are those wanted and not damaged."""
    try:
        found = read_contents(folder, wanted.engine, "")
        for graph in found.files:
            found.path(folder, graph)
    except UserError:
        return None
    return found if replace(found, files={}, cost={}) == wanted else None


def say_what(order: Order, wanted: Contents) -> None:
    """Log what is being built."""
    sizes = ", ".join(f"{axis} {low} to {high}" for axis, (low, _, high) in wanted.ranges.items() if axis != "steps")
    log.info("building %s engines in %s, for sizes of %s", order.engine, order.quant_mode, sizes)
    log.info("of %s", " and ".join(dict.fromkeys(source.path for source in wanted.sources.values())))


def write(order: Order, exported: Contents, engine: type[Engine], contents: Contents, folder: Path) -> None:
    """Build the engines and write them to a folder with their contents."""
    samples = samples_for(order, exported, engine, contents)
    for graph in contents.made_of:
        began = time.perf_counter()
        request = Build(
            graph=graph,
            signature=exported.signature(graph),
            onnx=order.graphs.get(graph) or exported.path(order.models_dir / ONNX, graph),
            source=exported.sources[kind_of(graph)],
            quant_mode=order.quant_mode,
            ranges=contents.ranges,
            options=contents.options,
            samples=samples.get(graph, {}),
            hop_length=exported.waveglow.data_config.hop_length,
            how=exported.again(order.models_dir / ONNX),
        )
        name = f"{graph}{engine.suffix}"
        with written_whole(folder / name) as file, still(f"building {graph}"):
            engine.build(request, Path(file.name))
        contents.add(folder, graph, name)
        log.info("%s: %.1f MB in %.0f s", graph, contents.files[graph].bytes / 1e6, time.perf_counter() - began)
    write_contents(folder, contents)


def samples_for(order: Order, exported: Contents, engine: type[Engine], contents: Contents) -> dict[str, Heard]:
    """Graph -> what it gets, for an engine that is calibrated by that; without ONNX Runtime none."""
    if order.quant_mode not in engine.calibrated or not importlib.util.find_spec("onnxruntime"):
        return {}
    with still("speaking what the engines are calibrated by"):
        return listen(contents, order.models_dir / ONNX, exported)


def check_own_graphs(order: Order, exported: Contents, usable: list[str]) -> None:
    """UserError for a graph of the user's that would not be used, or that is not the graph its option names."""
    for name, path in order.graphs.items():
        if name not in usable:
            builds = f"the graphs {', '.join(usable)}" if usable else "the checkpoints, not graphs"
            raise UserError(f"--{name} would not be used: {order.engine} is built from {builds}")
        try:
            with open_input(path) as file:
                graph = onnx.load(file, load_external_data=False).graph
        except (OSError, DecodeError) as error:
            raise UserError(f"--{name}: {path} is no ONNX graph: {error}") from error
        signature = exported.signature(name)
        for found, expected in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
            names = ", ".join(port.name for port in found)
            if names != ", ".join(expected):
                raise UserError(f"--{name}: {path} has {names} where {', '.join(expected)} are wanted")


def compare(order: Order, contents: Contents, exported: Contents) -> None:
    """Measure what the mode costs and store it with the engines; if that is impossible, say so."""
    if not importlib.util.find_spec("onnxruntime"):
        log.warning("what %s costs is not known: onnxruntime is not there to compare with", contents.quant_mode)
        return
    try:
        with still(f"measuring what {contents.quant_mode} costs"):
            contents.cost = measure_cost(order.folder, contents, order.models_dir / ONNX, exported)
    except DeviceError as error:
        log.warning("what %s costs is not known: %s; the engines are written", contents.quant_mode, error)
        return
    write_contents(order.folder, contents)
    distances = ", ".join(f"of {TITLES[kind]} {distance:.2g}" for kind, distance in contents.cost.items())
    log.info("%s costs: mel L1 (natural logarithm) %s", contents.quant_mode, distances)
