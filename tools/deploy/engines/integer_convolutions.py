"""1-D convolutions of an ONNX graph as products of 8-bit integers: three times as fast as ``Conv``, which in integers
takes five times as long as in float32 (ONNX Runtime 1.31.1). Those that upsample become products, too, in float32.

A product reads and writes rows, [B, T, C], where a convolution has [B, C, T]. What lies between two convolutions (sums,
gates, parts of the channels) can be computed on rows as well, so a tensor is transposed only where it comes from, or
goes to, something else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from tools.deploy.engines.rounding import quantize_weight
from tools.deploy.onnx_graphs import attributes_of, names_in

ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Relu", "Sigmoid", "Tanh", "Exp"}
ROWS = [0, 2, 1]
"Where each axis is on rows, and, that being its own inverse, where it was."


def convolutions_to_products(model: ModelProto, weights: Mapping[str, TensorProto]) -> None:
    """Make products of the convolutions of the model's main graph whose kernel is among ``weights``."""
    rewriting = _Rewriting(model.graph, _of_three_axes(model))
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if node.op_type in ("Conv", "ConvTranspose") else None
        if weight is not None and _is_a_product(node, weight):
            add = rewriting.add_product if node.op_type == "Conv" else rewriting.add_upsampling
            add(node, numpy_helper.to_array(weight))
        elif not rewriting.add_on_rows(node):
            rewriting.add_as_it_is(node)
    for output in model.graph.output:
        rewriting.need_plain(output.name)
    del model.graph.node[:]
    model.graph.node.extend(rewriting.nodes)


def _of_three_axes(model: ModelProto) -> set[str]:
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name for value in values if len(value.type.tensor_type.shape.dim) == 3}


def _is_a_product(node: NodeProto, weight: TensorProto) -> bool:
    """Whether a convolution is one as this repository exports them, which a graph of the user's own need not have: over
    one axis, without groups, and with its padding written out; strides only where it upsamples by them."""
    attributes = attributes_of(node)
    if len(weight.dims) != 3 or attributes.get("group", 1) != 1 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return False
    if node.op_type == "Conv":
        return attributes.get("strides", [1]) == [1] and {"pads", "dilations"} <= attributes.keys()
    usual = {"pads": [0, 0], "dilations": [1], "output_padding": [0]}
    has_frames = len(node.input) == 3 and weight.dims[2] % attributes.get("strides", [1])[0] == 0
    return has_frames and all(attributes.get(name, value) == value for name, value in usual.items())


class _Rewriting:
    """A graph's nodes, added one by one in their order; of each tensor its rows, itself ("plain"), or both."""

    def __init__(self, graph: GraphProto, of_three_axes: set[str]):
        self.graph, self.of_three_axes = graph, of_three_axes
        self.nodes: list[NodeProto] = []
        self.constants = {each.name: each for each in graph.initializer}
        self.plain = {*self.constants, *(each.name for each in graph.input)}
        self.rows: dict[str, str] = {}
        self.integers: dict[str, list[str]] = {}
        "Of an input that convolutions share: the rows as integers, their scale and zero."

    def add_product(self, node: NodeProto, weight: np.ndarray) -> None:
        """A convolution with a weight [out, in, taps]."""
        x, name, attributes = node.input[0], node.output[0], attributes_of(node)
        if x not in self.integers:
            self.integers[x] = [f"{x}.{what}" for what in ("integers", "scale", "zero")]
            self._add("DynamicQuantizeLinear", [self._rows_of(x)], self.integers[x])
        seen, scale, zero = self.integers[x]
        if weight.shape[2] > 1:
            (dilation,) = attributes["dilations"]
            seen = self._windows(name, seen, zero, weight.shape[2], attributes["pads"], dilation)
        matrix = weight.transpose(2, 1, 0).reshape(-1, weight.shape[0])
        integers, scales = quantize_weight(matrix, axes=(0,))
        given = [self._constant(f"{name}.{what}", values) for what, values in (("int8", integers), ("scales", scales))]
        inputs = [seen, given[0], scale, given[1], zero, "", *node.input[2:]]
        self.rows[name] = f"{name}.rows"
        self._add("MatMulIntegerToFloat", inputs, [self.rows[name]], domain="com.microsoft")

    def add_upsampling(self, node: NodeProto, weight: np.ndarray) -> None:
        """A transposed convolution with a weight [in, out, reach * stride]: a product of the frames it reaches over."""
        name, (stride,) = node.output[0], attributes_of(node).get("strides", [1])
        reach, channels = weight.shape[2] // stride, weight.shape[1]
        seen = self._windows(name, self._rows_of(node.input[0]), "", reach, (reach - 1, reach - 1), 1)
        # [in, out, reach, stride] -> [reach, in, stride, out], the frame before last in front of the last.
        matrix = weight.reshape(*weight.shape[:2], reach, stride).transpose(2, 0, 3, 1)[::-1]
        matrix = np.ascontiguousarray(matrix).reshape(-1, stride * channels)
        self._add("MatMul", [seen, self._constant(f"{name}.matrix", matrix)], [f"{name}.frames"])
        shape = self._constant(f"{name}.shape", np.array([0, -1, channels]))
        self._add("Reshape", [f"{name}.frames", shape], [f"{name}.unbiased"])
        self.rows[name] = f"{name}.rows"
        self._add("Add", [f"{name}.unbiased", node.input[2]], [self.rows[name]])

    def _windows(self, name: str, seen: str, zero: str, taps: int, pads: Sequence[int], dilation: int) -> str:
        """[B, T, in] -> [B, T, taps * in]: what each output sees."""
        before, behind = pads
        around = self._constant(f"{name}.pads", np.array([0, before, 0, 0, behind, 0]))
        axis = self._constant(f"{name}.axis", np.array([1]))
        self._add("Pad", [seen, around, zero], [f"{name}.padded"], mode="constant")
        parts = [f"{name}.tap{tap}" for tap in range(taps)]
        for tap, part in enumerate(parts):
            begin = self._constant(f"{part}.begin", np.array([tap * dilation]))
            end = self._constant(f"{part}.end", np.array([(tap + 1 - taps) * dilation or np.iinfo(np.int64).max]))
            self._add("Slice", [f"{name}.padded", begin, end, axis], [part])
        self._add("Concat", parts, [f"{name}.seen"], axis=2)
        return f"{name}.seen"

    def add_on_rows(self, node: NodeProto) -> bool:
        """A node that gets rows and can work on them; whether it is one."""
        variables = [name for name in node.input if name not in self.constants]
        constants = [numpy_helper.to_array(self.constants[name]) for name in node.input if name in self.constants]
        if not any(name in self.rows and name not in self.plain for name in variables):
            return False
        if not self.of_three_axes.issuperset((*variables, *node.output)):
            return False
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.op_type in ELEMENTWISE and all(each.ndim != 1 for each in constants):
            turned = [self._constant_on_rows(name, node) for name in node.input]
        elif node.op_type == "Split" or (node.op_type == "Concat" and not constants):
            turned = list(node.input)
            for attribute in copy.attribute:
                if attribute.name == "axis":
                    attribute.i = ROWS[attribute.i]
        elif node.op_type == "Slice" and len(node.input) > 3 and len(variables) == 1:
            axes = numpy_helper.to_array(self.constants[node.input[3]])
            turned = [*node.input[:3], self._constant(f"{node.output[0]}.axes", np.take(ROWS, axes)), *node.input[4:]]
        else:
            return False
        del copy.input[:], copy.output[:]
        copy.input.extend(self._rows_of(name) if name in variables else name for name in turned)
        self.rows.update({name: f"{name}.rows" for name in node.output})
        copy.output.extend(self.rows[name] for name in node.output)
        self.nodes.append(copy)
        return True

    def _constant_on_rows(self, name: str, node: NodeProto) -> str:
        if name not in self.constants or not self.constants[name].dims:
            return name
        turned = numpy_helper.to_array(self.constants[name]).swapaxes(-1, -2)
        return self._constant(f"{node.output[0]}.{name}", np.ascontiguousarray(turned))

    def add_as_it_is(self, node: NodeProto) -> None:
        """A node that takes tensors as they are."""
        for name in names_in(node):
            self.need_plain(name)
        self.plain.update(node.output)
        self.nodes.append(node)

    def need_plain(self, name: str) -> None:
        """Transpose a tensor of which there are only rows."""
        if name in self.rows and name not in self.plain:
            self.plain.add(name)
            self._add("Transpose", [self.rows[name]], [name], perm=ROWS)

    def _rows_of(self, name: str) -> str:
        if name not in self.rows:
            self.rows[name] = f"{name}.rows"
            self._add("Transpose", [name], [self.rows[name]], perm=ROWS)
        return self.rows[name]

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
