"""Whether a graph computes what its model does, at sizes other than those it was traced with."""

from collections.abc import Callable

import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn

TOLERANCE = 1e-3
"Largest difference between a graph and its model."
SIZES = [(1, 2), (2, 11), (5, 16)]
"(batch, length), other than those a graph is traced with."


def difference(graph: ModelProto, model: nn.Module, inputs: Callable[[int, int], dict[str, Tensor]]) -> float:
    """The largest difference between their outputs for the inputs of SIZES; inf if a shape differs, nan if an output of
    one of them is not finite."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    distances = []
    for batch, length in SIZES:
        given = inputs(batch, length)
        results = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        with torch.no_grad():
            expected = model(**given)
        for result, tensor in zip(results, [expected] if isinstance(expected, Tensor) else expected):
            if result.shape != tensor.shape:
                return float("inf")
            distances.append((torch.from_numpy(result).double() - tensor.double()).abs().max())
    return torch.stack(distances).max().item()  # nan if one is, which Python's own max may pass over
