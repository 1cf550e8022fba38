"""Triton's model.py of a graph, for servers without the backend of ONNX Runtime. Needs numpy and onnxruntime alone."""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The graph model.onnx beside this file."""

    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [port.name for port in self.session.get_inputs()]
        self.outputs = [port.name for port in self.session.get_outputs()]

    def execute(self, requests: list) -> list:
        """All requests, which are of the same shape but for the batch, in one run."""
        arrays = {
            name: [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self.inputs
        }
        ends = np.cumsum([len(array) for array in arrays[self.inputs[0]]])[:-1]
        results = self.session.run(self.outputs, {name: np.concatenate(each) for name, each in arrays.items()})
        shares = [np.split(result, ends) for result in results]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, part) for name, part in zip(self.outputs, parts)])
            for parts in zip(*shares)
        ]
