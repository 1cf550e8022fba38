"""MagicMind, on Cambricon's cards. Written from public call sites; it has never run on a card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.program import UserError
from tools.deploy.artifacts import Contents, Ranges
from tools.deploy.engines.engine import Build, DeviceError, Engine, Graph, Value
from tools.deploy.engines.names import mlu_name
from tools.deploy.signatures import Port, Signature, name_of

try:
    import magicmind.python.runtime as mm
    from magicmind.python.runtime.parser import Parser
except ImportError as error:
    raise UserError(
        f"--engine=magicmind: {error}; it needs Cambricon's driver, Neuware and the wheel of MagicMind that comes"
        " with them, and env.sh sourced"
    ) from error

PRECISION = {"force_float32": "force_float32", "force_float16": "force_float16", "int8": "qint8_mixed_float16"}


class MagicMind(Engine):
    """Options: ``builder_config``, what the builder is told beyond precision and sizes."""

    suffix = ".graph"

    def __init__(self, device: int, shares: int, options: Mapping[str, Any]):
        self.system = mm.System()
        check(self.system.initialize(), "initialize the system")
        self.device = mm.Device()
        self.device.id = device
        if not self.device.active().ok():
            raise DeviceError(f"device {device} does not exist: MagicMind cannot make it active")
        self.queue = made(self.device.create_queue(), "create a queue")
        self.graphs: list[MagicMindGraph] = []

    @staticmethod
    def build(request: Build, path: Path) -> None:
        """The graph compiled for the sizes and the precision wanted."""
        network, config = mm.Network(), mm.BuilderConfig()
        what = f"parse {request.onnx} (export with --opset=11, if it is of a later one)"
        check(Parser(mm.ModelKind.kOnnx).parse(network, str(request.onnx)), what)
        ports = list(request.signature.inputs.values())
        if network.get_input_count() != len(ports):
            raise UserError(f"MagicMind sees {network.get_input_count()} inputs of {request.onnx}, not {len(ports)}")
        for i, port in enumerate(ports):
            sizes = [axis if isinstance(axis, int) else -1 for axis in port.axes]
            check(network.get_input(i).set_dimension(mm.Dims(sizes)), f"set the sizes of input {i}")
        for part in configuration(request):
            check(config.parse_from_string(json.dumps(part)), f"configure {part}")
        model = made(mm.Builder().build_model(request.graph, network, config), f"build {request.graph}")
        check(model.serialize_to_file(str(path)), f"write {path}")

    def load(self, path: Path, graph: str, contents: Contents) -> Graph:
        """The model with an engine and a context of its own."""
        model = mm.Model()
        if not model.deserialize_from_file(str(path)).ok():
            raise UserError(f"{path} is none of MagicMind's files, or of another release")
        self.graphs.append(MagicMindGraph(model, contents.signature(graph), self))
        return self.graphs[-1]

    def close(self) -> None:
        """In the order in which one needs the other."""
        for graph in self.graphs:
            graph.close()
        self.graphs.clear()
        del self.queue, self.device
        self.system.destory()

    @property
    def device_name(self) -> str:
        return f"MagicMind on {mlu_name(self.device.id)}"


class MagicMindGraph(Graph):
    """A model; values are its tensors, which stay on the card."""

    def __init__(self, model: Any, signature: Signature, engine: MagicMind):
        self.model, self.device, self.queue = model, engine.device, engine.queue
        self.names, self.outputs = list(signature.inputs), list(signature.outputs)
        config = mm.Model.EngineConfig()
        config.device_type = "MLU"
        self.engine = made(model.create_i_engine(config), "create an engine")
        self.context = made(self.engine.create_i_context(), "create a context")
        self.inputs = self.context.create_inputs()
        self.dtypes = [numpy_type(each) for each in model.get_input_data_types()]

    def upload(self, name: str, array: np.ndarray) -> Value:
        index = self.names.index(name)
        return self._fill(self.context.create_inputs()[index], array, index)

    def run(self, inputs: Mapping[str, np.ndarray | Value]) -> dict[str, Value]:
        tensors = list(self.inputs)
        for i, name in enumerate(self.names):
            value = inputs[name]
            tensors[i] = self._fill(self.inputs[i], value, i) if isinstance(value, np.ndarray) else value
        outputs: list[Value] = []  # filled by MagicMind; a used one would be taken for memory to write to
        check(self.context.enqueue(tensors, outputs, self.queue, input_by_tensor_order=True), "enqueue")
        check(self.queue.sync(), "run")
        return dict(zip(self.outputs, outputs, strict=True))

    def fetch(self, value: Value) -> np.ndarray:
        array = value.asnumpy()
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def close(self) -> None:
        del self.inputs, self.context, self.engine, self.model, self.queue, self.device

    def _fill(self, tensor: Value, array: np.ndarray, index: int) -> Value:
        """An input tensor with these values, on the card."""
        check(tensor.from_numpy(np.ascontiguousarray(array, self.dtypes[index])), f"set {self.names[index]}")
        check(tensor.to(self.device), f"move {self.names[index]} to the card")
        return tensor


def configuration(request: Build) -> list[dict[str, Any]]:
    """Configuration of the builder, in parts; each is merged into those before it."""
    ports = request.signature.inputs.values()
    return [
        request.options.get("builder_config", {}),
        {"precision_config": {"precision_mode": PRECISION[request.quant_mode]}},
        {"graph_shape_mutable": True},
        {
            "dim_range": {
                str(i): {"min": sizes(port, request.ranges, 0), "max": sizes(port, request.ranges, -1)}
                for i, port in enumerate(ports)
                if any(isinstance(axis, str) for axis in port.axes)
            }
        },
    ]


def sizes(port: Port, ranges: Ranges, which: int) -> list[int]:
    """The smallest (0) or largest (-1) shape of a port."""
    named = {name_of(axis) for axis in port.axes if isinstance(axis, str)}
    return list(port.shape({name: ranges[name][which] for name in named}))


def numpy_type(dtype: Any) -> np.dtype:
    """Of one of MagicMind's."""
    for name in ("float32", "float16", "int64", "int32", "bool"):
        if dtype == getattr(mm.DataType, name.upper(), None):
            return np.dtype(name)
    raise UserError(f"MagicMind wants an input of type {dtype}, which is not known here")


def check(status: Any, what: str) -> None:
    """UserError for a status other than ok."""
    if not status.ok():
        raise UserError(f"MagicMind failed to {what}: {status}")


def made(result: Any, what: str) -> Any:
    """The result of a factory. UserError for None, which is how factories report failure."""
    if result is None:
        raise UserError(f"MagicMind failed to {what}; its log says why")
    return result
