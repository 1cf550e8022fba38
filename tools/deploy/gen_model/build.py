"""Build engines of the exported graphs: python -m tools.deploy.gen_model.build --help"""

import argparse
import importlib.util
import logging
import time
from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from common import program
from common.checkpoints.interchange import TITLES
from common.files import make_output_folder, remove_leftovers, written_whole
from common.log import open_log
from common.program import UserError
from tools.deploy.artifacts import (
    CONTENTS,
    ONNX,
    Contents,
    add_models_dir,
    engine_folder,
    read_contents,
    sole_writer,
    write_contents,
    writing,
)
from tools.deploy.engines.engine import ENGINES, QUANT_MODES, Build, find_engine
from tools.deploy.gen_model.precision_cost import measure_cost
from tools.deploy.gen_model.settings import Settings, load_settings
from tools.deploy.graphs import GRAPHS, kind_of

log = logging.getLogger(__name__)

DESCRIPTION = """\
Build engines of the graphs that tools.deploy.export_model.export has made, for a range of batch sizes.

They go to DIR/ENGINE_MODE. Modes: force_float32; force_float16 (on a CPU weights in half precision,
computed with in float32 by onnxruntime and in bfloat16 by torch); int8 (weights; what is
computed in 8 bits depends on the engine). What a mode other than force_float32 costs is measured
in distances of mel spectrograms, and said."""

EXAMPLES = """\
  python -m tools.deploy.gen_model.build --quant_mode force_float16 --bs 1 4 8
  python -m tools.deploy.gen_model.build --engine magicmind --quant_mode force_float32 --json my.json -o engines"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    settings = load_settings(args.json, args.bs)
    exported = read_contents(args.models_dir / ONNX, ONNX, "run export_model/run.sh first")
    folder = args.output or engine_folder(args.models_dir, args.engine, args.quant_mode)
    make_output_folder(folder)
    with sole_writer(args.models_dir, folder):
        contents = build(args, settings, exported, folder)
        if args.quant_mode != "force_float32" and not args.no_compare:
            compare(folder, contents, args.models_dir / ONNX, exported)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--engine", default="onnxruntime", choices=ENGINES, help="default: %(default)s")
    add("--quant_mode", default="force_float32", choices=QUANT_MODES, help="default: %(default)s")
    add("--bs", nargs=3, type=int, metavar=("MIN", "USUAL", "MAX"), help="batch sizes (default: the configuration's)")
    add("--json", type=Path, metavar="FILE", help="build configuration (default: configs/deploy.json)")
    add_models_dir(parser)
    add("-o", "--output", type=Path, metavar="DIR", help="for the engines (default: in the models_dir)")
    for name in GRAPHS:
        add(f"--{name}", type=Path, metavar="FILE", help=f"another {name}.onnx than that of the models_dir")
    add("--no-compare", action="store_true", help="do not measure what the mode costs")
    return parser.parse_args()


def build(args: argparse.Namespace, settings: Settings, exported: Contents, folder: Path) -> Contents:
    """The engines of all graphs that are needed; what was in the folder before is replaced."""
    engine, of_engine = find_engine(args.engine), settings.engine(args.engine)
    own = own_graphs(args, exported, of_engine.graphs() if engine.takes_graphs else [])
    remove_leftovers(folder)
    (folder / CONTENTS).unlink(missing_ok=True)  # until it is complete again
    contents = replace(
        exported,
        engine=args.engine,
        files={},
        quant_mode=args.quant_mode,
        ranges=settings.sizes(),
        options=of_engine.options(),
    )
    for graph in of_engine.graphs():
        began = time.perf_counter()
        request = Build(
            graph=graph,
            signature=exported.signature(graph),
            onnx=own.get(graph) or exported.path(args.models_dir / ONNX, graph),
            source=exported.sources[kind_of(graph)],
            quant_mode=args.quant_mode,
            ranges=contents.ranges,
            options=contents.options,
        )
        name = f"{graph}{engine.suffix}"
        with writing(folder), written_whole(folder / name) as file:
            engine.build(request, Path(file.name))
        contents.add(folder, graph, name)
        log.info("%s: %.1f MB in %.0f s", graph, contents.files[graph]["bytes"] / 1e6, time.perf_counter() - began)
    write_contents(folder, contents)
    log.info("wrote %s, for batches of %d to %d", folder, contents.ranges["batch"][0], contents.ranges["batch"][-1])
    return contents


def own_graphs(args: argparse.Namespace, exported: Contents, usable: list[str]) -> dict[str, Path]:
    """Graphs that the user names. UserError for one that would not be used, or that is not the one of its option."""
    own = {name: getattr(args, name) for name in GRAPHS if getattr(args, name)}
    for name, path in own.items():
        if name not in usable:
            builds = f"the graphs {', '.join(usable)}" if usable else "the checkpoints, not graphs"
            raise UserError(f"--{name} would not be used: {args.engine} is built from {builds}")
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except (OSError, DecodeError) as error:
            raise UserError(f"--{name}: {path} is no ONNX graph: {error}") from error
        signature = exported.signature(name)
        for found, expected in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
            names = ", ".join(port.name for port in found)
            if names != ", ".join(expected):
                raise UserError(f"--{name}: {path} has {names} where {', '.join(expected)} are wanted")
    return own


def compare(folder: Path, contents: Contents, onnx_folder: Path, exported: Contents) -> None:
    """Measure what the mode costs, and keep it with the engines."""
    if not importlib.util.find_spec("onnxruntime"):
        log.warning("what %s costs is not known: onnxruntime is not there to compare with", contents.quant_mode)
        return
    contents.cost = measure_cost(folder, contents, onnx_folder, exported)
    write_contents(folder, contents)
    distances = ", ".join(f"of {TITLES[kind]} {distance:.2g}" for kind, distance in contents.cost.items())
    log.info("%s costs: mel L1 (natural logarithm) %s", contents.quant_mode, distances)


if __name__ == "__main__":
    program.run(main)
