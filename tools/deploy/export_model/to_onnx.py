"""Checkpoints to a folder of ONNX graphs, each compared with its model."""

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto
from torch import Tensor, nn

from common.files import make_output_folder, written_whole
from common.folder_lock import sole_writer
from common.hints import NAME_SYMBOLS
from common.log import still
from common.program import UserError
from tacotron2.config import check_symbols
from tools.deploy import commands, models
from tools.deploy.artifacts import CONTENTS, ONNX, Contents, read_contents, renewed, write_contents
from tools.deploy.checkpoints import Wanted, is_of_a_voice
from tools.deploy.export_model.decoder_loop import decoder_loop
from tools.deploy.export_model.example_inputs import example_inputs, loop_inputs
from tools.deploy.export_model.metadata import describe
from tools.deploy.export_model.onnx_export import check_exporter, export
from tools.deploy.export_model.opset import OPSETS, lowered
from tools.deploy.graphs import DecoderGraph, EncoderGraph, exportable
from tools.deploy.infer_python.requests import pronunciations
from tools.deploy.models import Model

log = logging.getLogger(__name__)

BATCH, LENGTH = 3, 7
"Sizes of the inputs that the graphs are traced with. The exporter treats a size of 1 as fixed."


class Export(NamedTuple):
    """A graph, the module that computes the same, and what gives inputs for a batch and a length."""

    name: str
    graph: ModelProto
    module: nn.Module
    inputs: Callable[[int, int], dict[str, Tensor]]


def export_graphs(models_dir: Path, wanted: Wanted, opset: int | None = None) -> None:
    """The graphs of these checkpoints, in the folder onnx, by default in the oldest opset.

    UserError for checkpoints that nobody has named where there are graphs of other ones, and for a dictionary that is
    missing.
    """
    check_exporter()
    folder, opset = models_dir / ONNX, opset or OPSETS[0]
    check_replaceable(folder, wanted)
    log.info("exporting the graphs of %s to %s", " and ".join(dict.fromkeys(wanted.paths.values())), folder)
    began = time.perf_counter()
    with still("reading the checkpoints"):
        found = {kind: models.load(kind, path, wanted.hints) for kind, path in wanted.paths.items()}
    if wanted.cleaners:
        found["tacotron2"].config.data_config.text_cleaners = wanted.cleaners
    check_symbols(wanted.paths["tacotron2"], found["tacotron2"].config, NAME_SYMBOLS)
    pronunciations(found["tacotron2"].config)
    models.check_fit(found["tacotron2"], found["waveglow"])
    make_output_folder(models_dir)
    with sole_writer(models_dir), renewed(folder) as new:
        write(found, new, wanted.sigma, opset, wanted.options)
    log.info("wrote %s in opset %d, in %.0f s", folder, opset, time.perf_counter() - began)


def check_replaceable(folder: Path, wanted: Wanted) -> None:
    """UserError, if graphs of other checkpoints would be replaced by those of checkpoints that nobody has named."""
    if wanted.named or not (folder / CONTENTS).is_file():
        return
    contents = read_contents(folder, ONNX, f"remove {folder}")
    there = {kind: source.path for kind, source in contents.sources.items()}
    if set(there.values()) - set(wanted.paths.values()) and not all(map(is_of_a_voice, there.values())):
        same, found = commands.again(*contents.exported_by), commands.again(*wanted.options)
        others = f"; those of what was found: {found}" if all(map(os.path.isfile, wanted.paths.values())) else ""
        what = f"{folder} holds the graphs of {' and '.join(there.values())}"
        raise UserError(f"{what}: name what is to replace them. The same ones again: {same}{others}")


def write(
    found: dict[str, Model], folder: Path, sigma: float, opset: int = OPSETS[0], options: Sequence[str] = ()
) -> None:
    """The graphs of the models in an opset, compared with them where ONNX Runtime is there."""
    contents = Contents(
        engine=ONNX,
        sources={kind: model.source for kind, model in found.items()},
        tacotron2=found["tacotron2"].config,
        waveglow=found["waveglow"].config,
        opset=opset,
        sigma=sigma,
        exported_by=list(options),
    )
    if not importlib.util.find_spec("onnxruntime"):
        log.warning("the graphs are not compared with their models: onnxruntime is not installed")
    for each in (each for model in found.values() for each in exports(model, opset)):
        with still(f"comparing {each.name} with its model"):
            onnx.checker.check_model(each.graph, full_check=True)
            describe(each.graph, contents.signature(each.name), contents)
            verdict = compare(each) if importlib.util.find_spec("onnxruntime") else ""
            with written_whole(folder / f"{each.name}.onnx") as file:
                file.write(each.graph.SerializeToString())
            contents.add(folder, each.name, f"{each.name}.onnx")
        log.info("%s: %d operators%s", each.name, len(each.graph.graph.node), verdict)
    write_contents(folder, contents)


def compare(exported: Export) -> str:
    """For the log. UserError if a graph does not compute what its model does."""
    from tools.deploy.export_model.verify import SIZES, TOLERANCE, difference  # needs ONNX Runtime

    worst = difference(exported.graph, exported.module, exported.inputs)
    if not worst <= TOLERANCE:
        raise UserError(f"{exported.name}.onnx is off its model by {worst:g}, more than {TOLERANCE:g}: not written")
    return f", off its model by {worst:.1g} at most ({len(SIZES)} sizes of batch and length)"


def exports(model: Model, opset: int) -> Iterator[Export]:
    """The graphs of a model in an opset."""
    signatures, graphs = model.signatures(), dict[str, ModelProto]()
    for name, module in model.modules().items():
        signature = signatures[name]
        inputs = partial(example_inputs, signature)
        with still(f"exporting {name}"):
            if isinstance(module, DecoderGraph):
                inputs = partial(loop_inputs, module.decoder, signature)
                graphs[name] = decoder_loop(graphs["decoder_iter"], module.decoder.gate_threshold, signature)
            else:
                traced = exportable(module) if isinstance(module, EncoderGraph) else module
                graphs[name] = export(traced, inputs(BATCH, LENGTH), signature)
            graph = lowered(graphs[name], opset)
        yield Export(name, graph, module, inputs)
