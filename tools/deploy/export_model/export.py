"""Export Tacotron2 and WaveGlow to ONNX: python -m tools.deploy.export_model.export --help"""

import argparse
import importlib.util
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto
from torch import Tensor, nn

from common import program
from common.checkpoints.interchange import TITLES
from common.files import make_output_folder, remove_leftovers, written_whole
from common.log import open_log
from common.program import UserError
from tools.deploy import models
from tools.deploy.artifacts import CONTENTS, ONNX, Contents, add_models_dir, sole_writer, write_contents, writing
from tools.deploy.engines.engine import ENGINES
from tools.deploy.export_model.decoder_loop import decoder_loop
from tools.deploy.export_model.example_inputs import LoopReference, example_inputs, loop_inputs
from tools.deploy.export_model.onnx_export import check_exporter, export
from tools.deploy.graphs import DecoderIterGraph, EncoderGraph, exportable
from tools.deploy.models import RANDOM, Model

log = logging.getLogger(__name__)

DESCRIPTION = """\
Export Tacotron2 and WaveGlow to ONNX: encoder, decoder_iter (one frame), decoder (the whole loop), postnet, waveglow.

The graphs go to DIR/onnx, each checked by onnx and compared with its model in ONNX Runtime. Without a
checkpoint, given or in DIR/checkpoints, a model has random weights at full size."""

EXAMPLES = """\
  python -m tools.deploy.export_model.export
  python -m tools.deploy.export_model.export --tacotron2 tacotron2_5000 --waveglow waveglow_21000"""

DOWNLOADED = {"tacotron2": "nvidia_tacotron2pyt_fp16_20190427", "waveglow": "nvidia_waveglow256pyt_fp16"}
"Names of the files that get_datasets_and_models.sh puts into DIR/checkpoints."
BATCH, LENGTH = 3, 7
"Sizes of the inputs that the graphs are traced with. The exporter takes a size of 1 for a fixed one."


class Export(NamedTuple):
    """A graph, the module that computes the same, and what gives inputs for a batch and a length."""

    name: str
    graph: ModelProto
    module: nn.Module
    inputs: Callable[[int, int], dict[str, Tensor]]


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    check_exporter()
    found = {kind: models.load(kind, find_checkpoint(kind, args)) for kind in DOWNLOADED}
    models.check_fit(found["tacotron2"], found["waveglow"])
    make_output_folder(args.models_dir)
    with sole_writer(args.models_dir):
        write(found, args.models_dir / ONNX)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    for kind in DOWNLOADED:
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"checkpoint of {TITLES[kind]}, of any form")
    add_models_dir(parser)
    parser.add_argument("--engine", choices=ENGINES, help="for which engine; the graphs are the same for all of them")
    return parser.parse_args()


def find_checkpoint(kind: str, args: argparse.Namespace) -> str:
    """The checkpoint that was asked for, else the downloaded one, else RANDOM."""
    downloaded = args.models_dir / "checkpoints" / DOWNLOADED[kind]
    path = getattr(args, kind) or (downloaded if downloaded.is_file() else None)
    return str(Path(path).resolve()) if path else RANDOM


def write(found: dict[str, Model], folder: Path) -> None:
    """The graphs of the models, compared with them where ONNX Runtime is there."""
    make_output_folder(folder)
    remove_leftovers(folder)
    (folder / CONTENTS).unlink(missing_ok=True)  # until it is complete again
    contents = Contents(
        engine=ONNX,
        sources={kind: model.path for kind, model in found.items()},
        sizes={kind: model.sizes() for kind, model in found.items()},
        signatures={name: asdict(s) for model in found.values() for name, s in model.signatures().items()},
    )
    if not importlib.util.find_spec("onnxruntime"):
        log.warning("the graphs are not compared with their models: onnxruntime is not installed")
    began = time.perf_counter()
    for each in (each for model in found.values() for each in exports(model)):
        onnx.checker.check_model(each.graph, full_check=True)
        verdict = compare(each) if importlib.util.find_spec("onnxruntime") else ""
        with writing(folder), written_whole(folder / f"{each.name}.onnx") as file:
            file.write(each.graph.SerializeToString())
        contents.add(folder, each.name, f"{each.name}.onnx")
        log.info("%s: %d operators%s", each.name, len(each.graph.graph.node), verdict)
    write_contents(folder, contents)
    log.info("wrote %s in %.0f s", folder, time.perf_counter() - began)


def compare(exported: Export) -> str:
    """For the log. UserError if a graph does not compute what its model does."""
    from tools.deploy.export_model.verify import SIZES, TOLERANCE, difference  # needs ONNX Runtime

    worst = difference(exported.graph, exported.module, exported.inputs)
    if not worst <= TOLERANCE:
        raise UserError(f"{exported.name}.onnx is off its model by {worst:g}, more than {TOLERANCE:g}: not written")
    return f", off its model by {worst:.1g} at most ({len(SIZES)} sizes of batch and length)"


def exports(model: Model) -> Iterator[Export]:
    """The graphs of a model."""
    signatures = model.signatures()
    for name, module in model.modules().items():
        inputs = partial(example_inputs, signatures[name])
        traced = exportable(module) if isinstance(module, EncoderGraph) else module
        graph = export(traced, inputs(BATCH, LENGTH), signatures[name])
        yield Export(name, graph, module, inputs)
        if isinstance(module, DecoderIterGraph):
            loop = decoder_loop(graph, module.decoder.gate_threshold, signatures["decoder"])
            inputs = partial(loop_inputs, module.decoder, signatures["decoder"])
            yield Export("decoder", loop, LoopReference(module.decoder), inputs)


if __name__ == "__main__":
    program.run(main)
