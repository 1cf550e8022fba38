"""ONNX graphs with graphs inside of them."""

from collections.abc import Iterator

from onnx import GraphProto


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those inside of it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def remove_unused(graph: GraphProto) -> None:
    """Take out the initializers that no node has as an input."""
    used = {name for each in graphs(graph) for node in each.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
