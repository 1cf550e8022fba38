"""Weights of an ONNX graph in fewer bits.

Why not ONNX Runtime's own quantizers (1.31.1): ``quantize_dynamic`` stops at WaveGlow, whose kernels are parts of a
``Split``, and its decoder takes 0.7 ms for a step where this one takes 0.5; ``MatMulNBitsQuantizer`` knows neither
convolutions nor the products inside a loop. Measured on two cores, with the graphs of the voice heart.
"""

from collections.abc import Iterable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tools.deploy.engines.integer_convolutions import convolutions_to_products
from tools.deploy.engines.rounding import quantize_weight
from tools.deploy.onnx_graphs import attributes_of, graphs, remove_unused

BLOCK = 128
"Inputs of a matrix product that share a scale."
SMALLEST = 2**12
"Weights of fewer elements stay as they are."


def to_float16(model: ModelProto, smallest: int = SMALLEST) -> None:
    """Weights in float16, the arithmetic in float32: for a processor without float16 arithmetic."""
    casts = []
    for weight in list(_weights(model, smallest).values()):
        half = numpy_helper.to_array(weight).astype(np.float16)
        casts.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], to=TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(half, f"{weight.name}.half"))
    _prepend(model.graph, casts)


def to_int8(model: ModelProto, smallest: int = SMALLEST, on_card: bool = False) -> None:
    """Weights in 8 bits.

    Matrix products become ONNX Runtime's ``MatMulNBits``, which rounds their inputs to 8 bits too,
    block by block, and multiplies integers. Convolutions' weights are rounded by output channel; on a CPU
    they become products of integers, for which the largest value of an input decides how all of it, a batch of
    clips together, is rounded. On a card, which has no such product, their arithmetic is float32.
    """
    weights = _weights(model, smallest)
    if not on_card:
        convolutions_to_products(model, weights)
    dequantized: dict[str, list[NodeProto]] = {}
    for graph in graphs(model.graph):
        nodes = []
        for node in graph.node:
            weight = weights.get(node.input[1]) if len(node.input) > 1 else None
            if weight is not None and node.op_type in ("MatMul", "Gemm") and len(weight.dims) == 2:
                nodes += _integer_product(model.graph, node, weight)
                continue
            if weight is not None and node.op_type == "Conv":
                if weight.name not in dequantized:
                    dequantized[weight.name] = _dequantized(model.graph, weight)
                node.input[1] = dequantized[weight.name][-1].output[0]
            nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
    _prepend(model.graph, [node for nodes in dequantized.values() for node in nodes])
    remove_unused(model.graph)
    if not any(opset.domain == "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _integer_product(graph: GraphProto, node: NodeProto, weight: TensorProto) -> list[NodeProto]:
    """``MatMulNBits`` in the place of a product with a weight."""
    attributes = attributes_of(node)
    matrix = numpy_helper.to_array(weight)
    matrix = matrix if attributes.get("transB") else matrix.T
    outputs, inputs = matrix.shape
    blocks = np.pad(matrix, ((0, 0), (0, -inputs % BLOCK))).reshape(outputs, -1, BLOCK)
    integers, scale = quantize_weight(blocks, axes=(2,))
    name = f"{node.output[0]}.{weight.name}"
    graph.initializer.append(
        numpy_helper.from_array((integers.astype(np.int16) + 128).astype(np.uint8), f"{name}.int8")
    )
    graph.initializer.append(numpy_helper.from_array(scale.reshape(-1), f"{name}.scale"))
    added = node.input[2:]
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{name}.int8", f"{name}.scale"],
        [f"{name}.product" if added else node.output[0]],
        domain="com.microsoft", K=inputs, N=outputs, bits=8, block_size=BLOCK, accuracy_level=4,
    )  # fmt: skip
    return [product, helper.make_node("Add", [product.output[0], *added], list(node.output))] if added else [product]


def _dequantized(graph: GraphProto, weight: TensorProto) -> list[NodeProto]:
    """The nodes that make a convolution's weight of its integers.

    ``DequantizeLinear`` has a scale for each output channel only from opset 13 on.
    """
    values = numpy_helper.to_array(weight)
    integers, scale = quantize_weight(values, axes=tuple(range(1, values.ndim)))
    graph.initializer.append(numpy_helper.from_array(integers, f"{weight.name}.int8"))
    columns = scale.reshape(-1, *[1] * (values.ndim - 1))
    graph.initializer.append(numpy_helper.from_array(columns, f"{weight.name}.scale"))
    return [
        helper.make_node("Cast", [f"{weight.name}.int8"], [f"{weight.name}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{weight.name}.float", f"{weight.name}.scale"], [f"{weight.name}.rounded"]),
    ]


def _weights(model: ModelProto, smallest: int) -> dict[str, TensorProto]:
    return {
        each.name: each
        for each in model.graph.initializer
        if each.data_type == TensorProto.FLOAT and np.prod(each.dims) >= smallest
    }


def _prepend(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    everything = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(everything)
