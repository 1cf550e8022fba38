"""ONNX Runtime, on the CPU or on CUDA cards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.program import UserError, first_line
from tools.deploy import commands
from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import Build, DeviceError, Engine, Graph, Value, counted, share_of_cores

try:
    import onnx
    import onnxruntime
    from onnxruntime import GraphOptimizationLevel, OrtValue, SessionOptions
except ImportError as error:
    raise UserError(f"--engine=onnxruntime: {error}; {commands.install('requirement.txt')}") from error

from tools.deploy.engines import quantization
from tools.deploy.engines.hardware_names import cuda_card_name, processor_name

CUDA = "CUDAExecutionProvider"


class OnnxRuntime(Engine):
    """Options: ``spinning``, whether threads that wait for work in a graph keep their core busy."""

    suffix = ".onnx"

    def __init__(self, device: int, shares: int, options: Mapping[str, Any]):
        self.on_card = CUDA in onnxruntime.get_available_providers()
        self.device = device
        if self.on_card:
            check_card(device)
        self.threads = 1 if self.on_card else share_of_cores(device, shares)
        self.spinning = bool(options.get("spinning", True))

    @staticmethod
    def build(request: Build, path: Path) -> None:
        """The graph simplified as far as every machine allows, its weights in the bits of the quant mode."""
        options = SessionOptions()
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        _session(request.onnx, options, ["CPUExecutionProvider"])
        model = onnx.load(path)
        put_in_order_of(onnx.load(request.onnx), model)
        on_card = CUDA in onnxruntime.get_available_providers()
        if request.quant_mode == "force_float16" and on_card:
            from onnxruntime.transformers.float16 import convert_float_to_float16

            model = convert_float_to_float16(model, keep_io_types=True)
        elif request.quant_mode == "force_float16":
            quantization.to_float16(model)
        elif request.quant_mode == "int8":
            quantization.to_int8(model, on_card=on_card)
        path.write_bytes(model.SerializeToString())

    def load(self, path: Path, graph: str, contents: Contents) -> Graph:
        """A session with no more threads than this process has cores."""
        options = SessionOptions()
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1  # the graphs are chains: nothing could run beside anything
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.spinning)))
        # Or a graph's threads would keep the cores from the threads of the next graph.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Attention far from its place and cells at rest become denormal numbers, which take a hundred times as long.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        providers = [(CUDA, {"device_id": self.device})] if self.on_card else []
        return OnnxGraph(_session(path, options, [*providers, "CPUExecutionProvider"]), self)

    @property
    def place(self) -> tuple[str, int]:
        return ("cuda", self.device) if self.on_card else ("cpu", 0)

    @property
    def device_name(self) -> str:
        where = cuda_card_name(self.device) if self.on_card else f"{processor_name()}, {counted(self.threads)}"
        return f"ONNX Runtime {onnxruntime.__version__} on {where}"


class OnnxGraph(Graph):
    """A session. Outputs stay where they were made and go in again without a copy."""

    def __init__(self, session: onnxruntime.InferenceSession, engine: OnnxRuntime):
        self.session = session
        self.place = engine.place
        self.outputs = [port.name for port in session.get_outputs()]

    def upload(self, name: str, array: np.ndarray) -> Value:
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self.place)

    def run(self, inputs: Mapping[str, np.ndarray | Value]) -> dict[str, Value]:
        binding = self.session.io_binding()
        # On the CPU they are the arrays' own memory, so they have to live until the run is over.
        values = {name: self.upload(name, v) if isinstance(v, np.ndarray) else v for name, v in inputs.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, *self.place)
        self.session.run_with_iobinding(binding)
        return dict(zip(self.outputs, binding.get_outputs()))

    def fetch(self, value: Value) -> np.ndarray:
        return value.numpy()


def check_card(device: int) -> None:
    """DeviceError for a card that cannot be used; ONNX Runtime itself would take the CPU without a word."""
    try:
        OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", device)
    except Exception as error:  # ONNX Runtime has a class for each, none of them public
        what = f"device {device} does not exist, or onnxruntime-gpu cannot use it"
        raise DeviceError(f"{what}: {first_line(error)}; on a CPU install onnxruntime in its place") from error


def put_in_order_of(original: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Put the nodes in the order that the original has them in.

    ONNX Runtime writes them in an order of its own. When it loads that, it begins with all nodes that need only the
    inputs: WaveGlow's conditions, all of which are then in memory when it comes to the first flow.
    """
    position = {name: i for i, node in enumerate(original.graph.node) for name in node.output}
    for node in model.graph.node:
        # What is new comes right behind what it needs.
        behind = max((position.get(name, 0) for name in node.input), default=0)
        for name in node.output:
            position.setdefault(name, behind)
    nodes = sorted(model.graph.node, key=lambda node: position[node.output[0]])
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _session(path: Path, options: SessionOptions, providers: list) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers)
    except Exception as error:
        what = f"{path} is no graph that ONNX Runtime can run"
        if options.optimized_model_filepath:
            what += f", or {Path(options.optimized_model_filepath).parent} cannot be written to"
        raise UserError(f"{what}: {first_line(error)}") from error
