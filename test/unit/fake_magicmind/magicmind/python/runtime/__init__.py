"""Building and running models."""

import json
import pickle
from enum import Enum

import onnx
import onnxruntime

CARDS = 2
MODES = ("force_float32", "force_float16", "qint8_mixed_float16")
CALLS = []
"What has been called, in order."


class ModelKind(Enum):
    kOnnx = 0  # noqa: N815


class DataType(Enum):
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"


class Code(Enum):
    OUT_OF_RANGE = 11


class QuantizationAlgorithm(Enum):
    LINEAR_ALGORITHM = 0
    EQNM_ALGORITHM = 1


class Status:
    """What methods return that act."""

    def __init__(self, *what):
        self.message = str(what[-1]) if what else ""

    @classmethod
    def OK(cls):  # noqa: N802
        return cls()

    def ok(self):
        return not self.message

    def __str__(self):
        return self.message or "OK"


class Dims:
    def __init__(self, sizes):
        self.sizes = list(sizes)

    def GetDims(self):  # noqa: N802
        return self.sizes


class System:
    running = False

    def initialize(self):
        System.running = True
        CALLS.append("initialize")
        return Status()

    def destory(self):
        assert System.running
        System.running = False
        CALLS.append("destory")
        return Status()

    def __enter__(self):
        self.initialize()
        return self

    def __exit__(self, *error):
        self.destory()

    def device_count(self):
        assert System.running
        return CARDS


class Device:
    def __init__(self):
        assert System.running, "no system"
        self.id = None
        self.is_active = False

    def active(self):
        if self.id not in range(CARDS):
            return Status(f"no card {self.id}")
        self.is_active = True
        return Status()

    def create_queue(self):
        return Queue() if self.is_active else None

    def __del__(self):
        CALLS.append("device")


class Queue:
    def __init__(self):
        self.waiting = []

    def sync(self):
        for work in self.waiting:
            work()
        self.waiting.clear()
        return Status()

    def __del__(self):
        CALLS.append("queue")


class Network:
    def __init__(self):
        self.model = None
        self.sizes = {}

    def get_input_count(self):
        return len(self.model.graph.input)

    def get_input(self, index):
        return NetworkInput(self, index)


class NetworkInput:
    def __init__(self, network, index):
        self.network, self.index = network, index

    def set_dimension(self, dims):
        port = self.network.model.graph.input[self.index]
        if len(dims.GetDims()) != len(port.type.tensor_type.shape.dim):
            return Status(f"{port.name} has another number of dimensions")
        self.network.sizes[self.index] = dims.GetDims()
        return Status()


class BuilderConfig:
    def __init__(self):
        self.values = {}

    def parse_from_string(self, text):
        try:
            merge(self.values, json.loads(text))
        except ValueError as error:
            return Status(f"no JSON: {error}")
        return Status()


def merge(into, values):
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


class CalibDataInterface:
    """What an input is calibrated by; to be derived from."""


class Calibrator:
    def __init__(self, data):
        assert all(isinstance(each, CalibDataInterface) for each in data)
        self.data, self.algorithm = data, None

    def set_quantization_algorithm(self, algorithm):
        self.algorithm = QuantizationAlgorithm(algorithm)
        return Status()

    def calibrate(self, network, config):
        CALLS.append("calibrate")
        if not System.running or not CARDS or self.algorithm is None or len(self.data) != network.get_input_count():
            return Status("not ready")
        for data, port in zip(self.data, network.model.graph.input):
            wanted = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type).name
            while data.next().ok():
                sample = data.get_sample()
                if list(sample.shape) != data.get_shape().GetDims() or sample.dtype.name != data.get_data_type().value:
                    return Status(f"{port.name} has other samples than it says")
                if sample.dtype.name != wanted.replace("int64", "int32"):
                    return Status(f"{port.name} has samples of {sample.dtype}")
                CALLS.append(f"sample of {port.name}")
            data.reset()
            if not data.next().ok():  # as for an algorithm that reads them twice
                return Status(f"{port.name} cannot be read again")
        config.values["calibrated"] = True
        return Status()


class Builder:
    def build_model(self, name, network, config):
        """None for what cannot be built."""
        values = config.values
        types = {port.type.tensor_type.elem_type for port in network.model.graph.input}
        if values.get("precision_config", {}).get("precision_mode") not in MODES or not values.get("archs"):
            return None
        in_integers = "qint" in values["precision_config"]["precision_mode"]
        if in_integers and not values.keys() & {"calibrated", "custom_ranges"}:
            return None
        if len(network.sizes) != network.get_input_count() or not values.get("graph_shape_mutable"):
            return None
        if onnx.TensorProto.INT64 in types and not values.get("opt_config", {}).get("type64to32_conversion"):
            return None
        for index, sizes in network.sizes.items():
            limits = values.get("dim_range", {}).get(str(index))
            if -1 in sizes and (not limits or not fits(sizes, limits["min"]) or not fits(sizes, limits["max"])):
                return None
        model = Model()
        model.contents = {"name": name, "onnx": network.model.SerializeToString(), "config": values}
        return model


def fits(sizes, wanted):
    return len(sizes) == len(wanted) and all(size in (-1, want) for size, want in zip(sizes, wanted))


class Model:
    class EngineConfig:
        device_type = None

    contents = None

    def serialize_to_file(self, path):
        with open(path, "wb") as file:
            file.write(b"MagicMind")
            pickle.dump(self.contents, file)
        return Status()

    def deserialize_from_file(self, path):
        try:
            with open(path, "rb") as file:
                if file.read(9) != b"MagicMind":
                    return Status("no model")
                self.contents = pickle.load(file)
        except Exception as error:
            return Status(str(error))
        self.inputs = list(onnx.load_from_string(self.contents["onnx"]).graph.input)
        return Status()

    def get_input_num(self):
        return len(self.inputs)

    def get_input_names(self):
        return [port.name for port in self.inputs]

    def get_input_data_types(self):
        types = [onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type).name for port in self.inputs]
        return [DataType("int32" if name == "int64" else name) for name in types]

    def create_i_engine(self, config=None):
        return Engine(self) if self.contents and (config is None or config.device_type == "MLU") else None

    def __del__(self):
        CALLS.append("model")


class Engine:
    def __init__(self, model):
        self.model = model

    def create_i_context(self):
        return Context(self.model)

    def __del__(self):
        CALLS.append("engine")


class Context:
    def __init__(self, model):
        self.model = model
        self.session = onnxruntime.InferenceSession(model.contents["onnx"], providers=["CPUExecutionProvider"])
        self.ranges = model.contents["config"]["dim_range"]

    def create_inputs(self):
        return [Tensor(dtype) for dtype in self.model.get_input_data_types()]

    def enqueue(self, inputs, outputs, queue, input_by_tensor_order=False):
        """Fills the list of outputs, which are there once the queue is in sync."""
        CALLS.append("enqueue")
        if outputs:
            return Status("the list of outputs is in use")
        if any(tensor.made_by is not self and tensor.made_by for tensor in inputs) and not input_by_tensor_order:
            return Status("the inputs are not the context's")
        feed = {}
        for index, (tensor, port) in enumerate(zip(inputs, self.model.inputs, strict=True)):
            if tensor.values is None or not tensor.on_card:
                return Status(f"{port.name} is not on the card")
            limits = self.ranges.get(str(index))
            shape = tensor.values.shape
            if limits and not all(a <= b <= c for a, b, c in zip(limits["min"], shape, limits["max"], strict=True)):
                return Status(f"{port.name} is {shape}, outside of {limits}")
            dtype = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
            feed[port.name] = tensor.values.astype(dtype)
        outputs += [Tensor(None, made_by=self) for _ in self.session.get_outputs()]
        queue.waiting.append(lambda: self._run(feed, outputs))
        return Status()

    def _run(self, feed, outputs):
        for tensor, values in zip(outputs, self.session.run(None, feed)):
            tensor.values, tensor.on_card = values, True

    def __del__(self):
        CALLS.append("context")


class Tensor:
    def __init__(self, dtype, made_by=None):
        self.dtype, self.made_by = dtype, made_by
        self.values, self.on_card = None, False

    def from_numpy(self, array):
        if array.dtype.name != self.dtype.value:
            return Status(f"{array.dtype} in the place of {self.dtype.value}")
        self.values, self.on_card = array.copy(), False
        return Status()

    def to(self, device):
        if not device.is_active:
            return Status("the card is not active")
        self.on_card = True
        CALLS.append("to")
        return Status()

    def asnumpy(self):
        CALLS.append("asnumpy")
        return self.values
