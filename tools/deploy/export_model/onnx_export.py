"""A graph's module as ONNX."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.export
import torch.onnx
from onnx import ModelProto
from torch import Tensor, nn

from common.program import UserError
from tools.deploy.signatures import Port, Signature, factor, name_of

OPSET = 18
"The oldest opset that the exporter writes; ``export_model.opset`` makes older ones of it."


def check_exporter() -> None:
    """UserError if this PyTorch's exporter is too old."""
    if not hasattr(torch.onnx, "ops"):
        raise UserError(
            f"PyTorch {torch.__version__} cannot export the graphs, 2.8 or later can;"
            " ONNX Runtime can use a --models_dir whose folder onnx was made elsewhere"
        )


def export(module: nn.Module, inputs: dict[str, Tensor], signature: Signature) -> ModelProto:
    """The module as ONNX with the names of its signature, every named axis of any size.

    By torch's exporter that uses ``torch.export``, not the one that uses TorchScript: the latter writes
    the sizes it meets into the graph without a word where the former stops, makes twice the operators,
    and is on its way out. The former cannot export a loop over a text of any length, see ``LSTMOperator``.
    """
    # With gradients the model takes the routes of training.
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            dynamic_shapes=dynamic_shapes(signature.inputs.values()),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the exporter that uses TorchScript returns none
    model = program.model_proto
    strip(model)
    return model


def dynamic_shapes(ports: Iterable[Port]) -> tuple[dict[int, "torch.export.Dim"], ...]:
    """For ``torch.export``: the axes of each input that may have any size."""
    dims: dict[str, torch.export.Dim] = {}

    def dim(axis: str) -> "torch.export.Dim":
        own = dims.setdefault(name_of(axis), torch.export.Dim(name_of(axis)))
        return own if factor(axis) == 1 else factor(axis) * own

    return tuple({i: dim(axis) for i, axis in enumerate(port.axes) if isinstance(axis, str)} for port in ports)


def strip(model: ModelProto) -> None:
    """Remove what the exporter records about this machine: the file in which each operator was defined."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's messages about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
