"""The whole decoder as one ONNX graph: an operator ``Loop`` around the exported ``decoder_iter``.

To export a loop from Python would make a second copy of the decoder; this one is made around
the graph that there is.
"""

from collections.abc import Iterable, Sequence

import onnx
import onnx.parser
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from tools.deploy.signatures import Port, Signature

BODY_BEFORE = "masks = Gather <axis: int = 1> (prenet_masks, step)"
"In front of a step; its own masks."
BODY_AFTER = """\
frame = Identity (decoder_output)
weights = Identity (out_attention_weights)
gate = Squeeze (gate_prediction, second)
probability = Sigmoid (gate)
one_more = Cast <to: int = 6> (running)
out_taken = Add (taken, one_more)
fired = Greater (probability, gate_threshold)
silent = Not (fired)
below = Less (out_taken, max_decoder_steps)
goes_on = And (silent, below)
out_running = And (running, goes_on)
count = Cast <to: int = 6> (out_running)
any = ReduceMax <keepdims: int = 0> (count)
out_any_running = Cast <to: int = 9> (any)"""
"Behind it: what is kept of it, and who goes on."
BEFORE = """\
batch = Shape <start: int = 0, end: int = 1> (mask)
text = Shape <start: int = 1, end: int = 2> (mask)
capacity = Shape <start: int = 1, end: int = 2> (prenet_masks)
limit = Squeeze (capacity)
taken_0 = ConstantOfShape <value: tensor = int32[1] {0}> (batch)
running_0 = ConstantOfShape <value: tensor = bool[1] {1}> (batch)"""
"In front of the loop."
AFTER = """\
apart = Reshape (frames, frames_apart)
mel_by_step = Transpose <perm: ints = [1, 3, 0, 2]> (apart)
mel_outputs = Reshape (mel_by_step, frames_together)
mel_lengths = Mul (taken_last, frames_per_step)
gate_outputs = Transpose <perm: ints = [1, 0]> (gates)
alignments = Transpose <perm: ints = [1, 0, 2]> (all_weights)"""
"Behind the loop, which stacks what it collects."


def decoder_loop(step: ModelProto, gate_threshold: float, signature: Signature) -> ModelProto:
    """The graph ``decoder`` with this signature, of the graph ``decoder_iter`` in the exporter's opset.

    It decodes until every clip's gate has fired or its ``max_decoder_steps`` are taken, at most as many steps
    as there are ``prenet_masks``. ``mel_lengths`` counts a clip's frames, those of the step with which
    its gate fired included; what is behind them belongs to no clip.
    """
    ports = {port.name: port for port in step.graph.input}
    state = [port.name.removeprefix("out_") for port in step.graph.output if port.name.startswith("out_")]
    constant, changing = _split(step.graph, {"decoder_input", "prenet_masks", *state})
    carried = ["decoder_input", *state, "taken", "running"]
    loop = helper.make_node(
        "Loop",
        ["limit", "true", *(f"{name}_0" for name in carried)],
        [*(f"{name}_last" for name in carried), "frames", "gates", "all_weights"],
        body=_body(step, changing, [ports[name] for name in carried[:-2]]),
    )
    n_mel, per_step = signature.outputs["mel_outputs"].axes[1], _axes(ports["decoder_input"])[1]
    assert isinstance(n_mel, int) and isinstance(per_step, int)
    frames_per_step = per_step // n_mel
    zeros = [node for name in carried[:-2] for node in _zeros(ports[name])]
    graph = helper.make_graph(
        [*_nodes(BEFORE), *zeros, *constant, loop, *_nodes(AFTER)],
        "decoder",
        [_value(name, port) for name, port in signature.inputs.items()],
        [_value(name, port) for name, port in signature.outputs.items()],
        [
            *step.graph.initializer,
            helper.make_tensor("true", TensorProto.BOOL, [], [True]),
            helper.make_tensor("second", TensorProto.INT64, [1], [1]),
            helper.make_tensor("frames_apart", TensorProto.INT64, [4], [0, 0, frames_per_step, n_mel]),
            helper.make_tensor("frames_together", TensorProto.INT64, [3], [0, n_mel, -1]),
            helper.make_tensor("frames_per_step", TensorProto.INT32, [1], [frames_per_step]),
            helper.make_tensor("gate_threshold", TensorProto.FLOAT, [], [gate_threshold]),
        ],
    )
    return helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)


def _split(graph: GraphProto, changing: set[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes that give the same at every step, and the others."""
    parts: tuple[list[NodeProto], list[NodeProto]] = [], []
    for node in graph.node:
        changes = not changing.isdisjoint(node.input)
        parts[changes].append(node)
        changing |= set(node.output) if changes else set()
    return parts


def _body(step: ModelProto, nodes: Iterable[NodeProto], state: Sequence[ValueInfoProto]) -> GraphProto:
    """One turn of the loop: (step, any running, state, steps taken, running) -> the same and what is collected."""
    results = {port.name: port for port in step.graph.output}
    own = lambda name, dtype, *axes: _value(name, Port(axes, dtype))  # noqa: E731
    number, taken, running = own("step", "int64"), own("taken", "int32", "batch"), own("running", "bool", "batch")
    return helper.make_graph(
        [*_nodes(BODY_BEFORE), *_renamed(nodes, "prenet_masks", "masks"), *_nodes(BODY_AFTER)],
        "step",
        [number, own("any_running", "bool"), *state, taken, running],
        [
            own("out_any_running", "bool"),
            results["decoder_output"],
            *(results[f"out_{port.name}"] for port in state[1:]),
            own("out_taken", "int32", "batch"),
            own("out_running", "bool", "batch"),
            own("frame", "float32", *_axes(results["decoder_output"])),
            own("gate", "float32", "batch"),
            own("weights", "float32", "batch", "text"),
        ],
    )


def _zeros(port: ValueInfoProto) -> list[NodeProto]:
    """``<name>_0``, a state's value in front of the first frame."""
    _, size = _axes(port)
    given = isinstance(size, str)
    constant = [] if given else _nodes(f"{port.name}_size = Constant <value_ints: ints = [{size}]> ()")
    name = port.name
    return constant + _nodes(
        f"{name}_shape = Concat <axis: int = 0> (batch, {size if given else f'{name}_size'})\n"
        f"{name}_0 = ConstantOfShape <value: tensor = float[1] {{0}}> ({name}_shape)"
    )


def _nodes(lines: str) -> list[NodeProto]:
    return [onnx.parser.parse_node(line) for line in lines.splitlines()]


def _renamed(nodes: Iterable[NodeProto], old: str, new: str) -> list[NodeProto]:
    """Copies of the nodes with another name for one of their inputs."""
    copies = []
    for node in nodes:
        copies.append(NodeProto())
        copies[-1].CopyFrom(node)
        copies[-1].input[:] = [new if name == old else name for name in node.input]
    return copies


def _axes(port: ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim]


def _value(name: str, port: Port) -> ValueInfoProto:
    dtype = {"float32": "FLOAT"}.get(port.dtype, port.dtype.upper())
    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(dtype), port.axes)
