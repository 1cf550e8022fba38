"""A graph in an older set of ONNX's operators, for engines that know no newer one.

torch's exporter writes opset 18 and later, and onnx's own converter cannot lower that: it stops at ``Split``.
The graphs have some 40 kinds of operators; those that older opsets write otherwise have a rule here.
"""

from collections.abc import Callable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from common.program import UserError
from tools.deploy.onnx_graphs import attributes_of, graphs, remove_unused

OPSETS = (11, 13, 18)
"Those offered. Public code for MagicMind exports with 10 to 13."
IR_VERSIONS = {11: 6, 13: 7}
"The version of the file's format of onnx's release with that opset; readers of its time know no later one."
MORE_TYPES = {
    "Add", "BatchNormalization", "Cast", "Concat", "Div", "Exp", "Expand", "Gather", "Gemm", "Greater", "Identity",
    "LSTM", "Less", "Loop", "MatMul", "Mul", "Pad", "Relu", "Sigmoid", "Slice", "Softmax", "Sub", "Tanh", "Transpose",
    "Where",
}  # fmt: skip
"""Operators whose newer versions only take more types, or what ``onnx.checker`` would find. Softmax is the same along
the last axis alone; whether it is that one, the comparison of each graph with its model tells."""

Rule = Callable[[NodeProto, int, "Constants"], list[NodeProto]]
"(node, opset, constants) -> the nodes that do the same in the older opset."


def lowered(model: ModelProto, opset: int) -> ModelProto:
    """A copy for this opset; the model's own if that is older. UserError for what the opset cannot say."""
    copy = ModelProto()
    copy.CopyFrom(model)
    (own,) = (each for each in copy.opset_import if not each.domain)
    if own.version <= opset:
        return copy
    constants = Constants(copy.graph)
    for graph in graphs(copy.graph):
        nodes = [new for node in graph.node for new in lower(node, own.version, opset, constants)]
        del graph.node[:]
        graph.node.extend(nodes)
    own.version = opset
    copy.ir_version = IR_VERSIONS[opset]
    remove_unused(copy.graph)
    return copy


def lower(node: NodeProto, before: int, opset: int, constants: "Constants") -> list[NodeProto]:
    """The nodes that do the same as the one."""
    if node.op_type in RULES:
        return RULES[node.op_type](node, opset, constants)
    try:
        same = defs.get_schema(node.op_type, before).since_version == defs.get_schema(node.op_type, opset).since_version
    except defs.SchemaError:
        same = False
    if not same and node.op_type not in MORE_TYPES:
        raise UserError(f"the operator {node.op_type} cannot be written in opset {opset}: --opset=18 has it")
    return [node]


class Constants:
    """The values that a graph holds, by their names."""

    def __init__(self, graph: GraphProto):
        self.tensors = {each.name: each for part in graphs(graph) for each in part.initializer}
        self.tensors |= {
            node.output[0]: constant_value(node)
            for part in graphs(graph)
            for node in part.node
            if node.op_type == "Constant"
        }

    def numbers(self, name: str) -> list[int]:
        """UserError for what is computed in the graph."""
        if name not in self.tensors:
            raise UserError(f"{name} is no constant, which the older opsets want it to be: --opset=18 does without")
        return [int(value) for value in numpy_helper.to_array(self.tensors[name]).reshape(-1)]


def as_attribute(name: str, until: int) -> Rule:
    """The rule of an operator whose axes or sizes are an attribute up to an opset, and an input in later ones."""

    def rule(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
        drop(node, "noop_with_empty_axes")
        drop(node, "num_outputs")  # of Split, which without sizes makes equal parts
        if opset <= until and len(node.input) > 1:
            node.attribute.append(helper.make_attribute(name, constants.numbers(node.input.pop(1))))
        return [node]

    return rule


def shape(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    """A part of a shape is sliced out of it."""
    given = attributes_of(node)
    if opset >= 15 or not given:
        return [node]
    name = node.output[0]
    bounds = {"starts": given.get("start", 0), "ends": given.get("end", np.iinfo(np.int64).max)}
    return [
        helper.make_node("Shape", list(node.input), [f"{name}.whole"]),
        *(constant(f"{name}.{which}", np.array([bound], np.int64)) for which, bound in bounds.items()),
        helper.make_node("Slice", [f"{name}.whole", f"{name}.starts", f"{name}.ends"], [name]),
    ]


def reshape(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    """A size of 0 means the input's, where allowzero is not known; the graphs have no axis of size 0."""
    if opset < 14:
        drop(node, "allowzero")
    return [node]


def greater_or_equal(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    if opset >= 12:
        return [node]
    less = f"{node.output[0]}.less"
    return [helper.make_node("Less", list(node.input), [less]), helper.make_node("Not", [less], list(node.output))]


def as_tensor(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    """A constant in the one form that all opsets have."""
    return [helper.make_node("Constant", [], list(node.output), value=constant_value(node))]


RULES: dict[str, Rule] = {
    "Constant": as_tensor,
    "GreaterOrEqual": greater_or_equal,
    "ReduceMax": as_attribute("axes", until=17),
    "ReduceSum": as_attribute("axes", until=12),
    "Reshape": reshape,
    "Shape": shape,
    "Split": as_attribute("split", until=12),
    "Squeeze": as_attribute("axes", until=12),
    "Unsqueeze": as_attribute("axes", until=12),
}


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def constant_value(node: NodeProto) -> TensorProto:
    """The value of a node ``Constant``, however it is written."""
    value = helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return value
    whole = node.attribute[0].name in ("value_int", "value_ints")
    return numpy_helper.from_array(np.array(value, np.int64 if whole else np.float32))


def drop(node: NodeProto, name: str) -> None:
    """Take an attribute away."""
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
