"""What is in ONNX graphs, and in the graphs inside of them."""

from collections.abc import Iterator
from typing import Any

from onnx import GraphProto, NodeProto, helper


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those inside of it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The node's attributes by their names, as far as they are written out."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def names_in(node: NodeProto) -> Iterator[str]:
    """What the node takes, and the nodes of the graphs inside of it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in graphs(attribute.g):
            for each in graph.node:
                yield from each.input


def remove_unused(graph: GraphProto) -> None:
    """Take out the initializers that no node has as an input."""
    used = {name for each in graphs(graph) for node in each.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
