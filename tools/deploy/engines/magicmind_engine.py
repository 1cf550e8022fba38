"""MagicMind, on Cambricon's cards. Written from public call sites; it has never run on a card."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.program import UserError, first_line
from tools.deploy.artifacts import Contents, Ranges
from tools.deploy.engines.engine import Build, DeviceError, Engine, Graph, Value
from tools.deploy.engines.hardware_names import mlu_name
from tools.deploy.signatures import Port, Signature, name_of

try:
    import magicmind.python.runtime as mm
    from magicmind.python.runtime.parser import Parser
except ImportError as error:
    raise UserError(
        f"--engine=magicmind: {error}; it needs Cambricon's driver, Neuware and the wheel of MagicMind that comes"
        " with them, and env.sh sourced"
    ) from error

log = logging.getLogger(__name__)

PRECISION = {"force_float32": "force_float32", "force_float16": "force_float16", "int8": "qint8_mixed_float16"}
QUANTIZATION = {"activation_quant_algo": "symmetric", "weight_quant_granularity": "per_axis"}
"How 8-bit engines are quantized, if ``builder_config`` does not say otherwise."
FAKE_RANGES = {"custom_ranges": {"": {"max": [1], "min": [-1]}}}
"The range of every tensor where there is nothing to calibrate with."


class MagicMind(Engine):
    """Options: ``builder_config``, what the builder is told beyond precision and sizes."""

    suffix = ".graph"
    calibrated = ("int8",)

    def __init__(self, device: int, shares: int, options: Mapping[str, Any]):
        try:
            self.system = mm.System()
            checked(self.system.initialize(), "initialize the system")
            self.device = mm.Device()
            self.device.id = device
            checked(self.device.active(), "make it active")
        except (UserError, RuntimeError) as error:
            raise DeviceError(f"device {device} does not exist: {error}") from error
        self.queue = checked(self.device.create_queue(), "create a queue", makes=True)
        self.graphs: list[MagicMindGraph] = []

    @staticmethod
    def build(request: Build, path: Path) -> None:
        """The graph compiled for the sizes and the precision wanted."""
        try:
            compile_graph(request, path)
        except RuntimeError as error:  # as its library in C++ throws
            raise UserError(f"MagicMind failed to build {request.graph}: {first_line(error)}") from error

    def load(self, path: Path, graph: str, contents: Contents) -> Graph:
        """The model with an engine and a context of its own."""
        model = mm.Model()
        checked(
            model.deserialize_from_file(str(path)), f"read {path}, which is none of its files or of another release"
        )
        self.graphs.append(MagicMindGraph(model, contents.signature(graph), self))
        return self.graphs[-1]

    def close(self) -> None:
        """In an order in which nothing loses what it needs."""
        for graph in self.graphs:
            graph.close()
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
        self.engine = checked(model.create_i_engine(config), "create an engine", makes=True)
        self.context = checked(self.engine.create_i_context(), "create a context", makes=True)
        self.inputs = checked(self.context.create_inputs(), "create inputs", makes=True)
        self.takes_others = True
        self.dtypes = [numpy_type(each) for each in model.get_input_data_types()]

    def upload(self, name: str, array: np.ndarray) -> Value:
        index = self.names.index(name)
        return self._fill(checked(self.context.create_inputs(), "create inputs", makes=True)[index], array, index)

    def run(self, inputs: Mapping[str, np.ndarray | Value]) -> dict[str, Value]:
        outputs: list[Value] = []  # filled by MagicMind; a used one would be taken for memory to write to
        try:
            self._enqueue(self._tensors(inputs), outputs)
        except TypeError:  # a release without input_by_tensor_order, which takes no tensors but its own
            if not self.takes_others:
                raise
            self.takes_others = False
            self._enqueue(self._tensors(inputs), outputs)
        checked(self.queue.sync(), "run")
        return dict(zip(self.outputs, outputs, strict=True))

    def _enqueue(self, tensors: list[Value], outputs: list[Value]) -> None:
        order = {"input_by_tensor_order": True} if self.takes_others else {}
        checked(self.context.enqueue(tensors, outputs, self.queue, **order), "enqueue")

    def _tensors(self, inputs: Mapping[str, np.ndarray | Value]) -> list[Value]:
        """The inputs in their order: arrays in the context's own tensors, others as they are or copied into those."""
        tensors = []
        for i, name in enumerate(self.names):
            value = inputs[name]
            if not isinstance(value, np.ndarray):
                if self.takes_others:
                    tensors.append(value)
                    continue
                value = value.asnumpy()
            tensors.append(self._fill(self.inputs[i], value, i))
        return tensors

    def fetch(self, value: Value) -> np.ndarray:
        array = value.asnumpy()
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def close(self) -> None:
        del self.inputs, self.context, self.engine, self.model, self.queue, self.device

    def _fill(self, tensor: Value, array: np.ndarray, index: int) -> Value:
        """An input tensor with these values, on the card."""
        checked(tensor.from_numpy(np.ascontiguousarray(array, self.dtypes[index])), f"set {self.names[index]}")
        checked(tensor.to(self.device), f"move {self.names[index]} to the card")
        return tensor


def compile_graph(request: Build, path: Path) -> None:
    """From ONNX to a file. UserError for what MagicMind refuses, RuntimeError for what it throws."""
    network, config = mm.Network(), mm.BuilderConfig()
    what = f"parse {request.onnx} (if it is of a later opset than 11: {request.how} --opset=11)"
    checked(Parser(mm.ModelKind.kOnnx).parse(network, str(request.onnx)), what)
    ports = list(request.signature.inputs.values())
    if network.get_input_count() != len(ports):
        raise UserError(f"MagicMind sees {network.get_input_count()} inputs of {request.onnx}, not {len(ports)}")
    for i, port in enumerate(ports):
        sizes = [axis if isinstance(axis, int) else -1 for axis in port.axes]
        checked(network.get_input(i).set_dimension(mm.Dims(sizes)), f"set the sizes of input {i}")
    in_integers = request.quant_mode in MagicMind.calibrated
    samples = request.samples if in_integers and cards() else {}
    if in_integers and not samples:
        log.warning("%s is not calibrated, for want of a card or samples: every range is -1 to 1", request.graph)
    for part in configuration(request, fake_ranges=in_integers and not samples):
        checked(config.parse_from_string(json.dumps(part)), f"configure {part}")
    if samples:
        calibrate(network, config, [samples[name] for name in request.signature.inputs], request.graph)
    model = checked(mm.Builder().build_model(request.graph, network, config), f"build {request.graph}", makes=True)
    checked(model.serialize_to_file(str(path)), f"write {path}")


def configuration(request: Build, fake_ranges: bool) -> list[dict[str, Any]]:
    """Configuration of the builder, in parts; each is merged into those before it."""
    ports = request.signature.inputs.values()
    return [
        *([{"precision_config": QUANTIZATION}] if request.quant_mode in MagicMind.calibrated else []),
        *([FAKE_RANGES] if fake_ranges else []),
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
    """NumPy's type for one of MagicMind's."""
    for name in ("float32", "float16", "int64", "int32", "bool"):
        if dtype == getattr(mm.DataType, name.upper(), None):
            return np.dtype(name)
    raise UserError(f"MagicMind wants an input of type {dtype}, which is not known here")


def cards() -> int:
    """How many there are; none without a driver."""
    try:
        with mm.System() as system:
            return system.device_count()
    except RuntimeError:
        return 0


def calibrate(network: Any, config: Any, samples: list[np.ndarray], graph: str) -> None:
    """Have MagicMind see what goes into a graph, on the first card."""
    data = [samples_of(each) for each in samples]
    calibrator = checked(mm.Calibrator(data), "make a calibrator", makes=True)
    algorithm = mm.QuantizationAlgorithm.LINEAR_ALGORITHM
    checked(calibrator.set_quantization_algorithm(algorithm), "set how to calibrate")
    with mm.System():
        device = mm.Device()
        device.id = 0
        checked(device.active(), "make device 0 active")
        checked(calibrator.calibrate(network, config), f"calibrate {graph}")
        del device


def samples_of(array: np.ndarray) -> Any:
    """What MagicMind asks for the samples of an input: this one, once."""
    narrow = array.astype(np.int32) if array.dtype == np.int64 else array

    class Samples(mm.CalibDataInterface):
        given = False

        def get_shape(self) -> Any:
            return mm.Dims(list(narrow.shape))

        def get_data_type(self) -> Any:
            return getattr(mm.DataType, narrow.dtype.name.upper())

        def get_sample(self) -> np.ndarray:
            return narrow

        def next(self) -> Any:
            if self.given:
                return mm.Status(mm.Code.OUT_OF_RANGE, "there is one sample")
            self.given = True
            return mm.Status.OK()

        def reset(self) -> Any:
            self.given = False
            return mm.Status.OK()

    return Samples()


def checked(result: Any, what: str, makes: bool = False) -> Any:
    """The result of a call. UserError for a status other than ok, or where the call makes something, for nothing made.

    Public code relies on a ``Status`` of some methods and on nothing of others, ``to`` for one, which may as well give
    the tensor; factories give the object, and None or a ``Status`` if they fail.
    """
    is_status = callable(getattr(result, "ok", None))
    if (is_status and not result.ok()) or (makes and (result is None or is_status)):
        raise UserError(f"MagicMind failed to {what}: {result if is_status else 'its log says why'}")
    return result
