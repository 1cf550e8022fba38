"""What goes into each graph when the usual text is spoken, for engines that choose the scales of integers by it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tools.deploy.artifacts import Contents
from tools.deploy.engines.engine import Graph, Value, find_engine
from tools.deploy.gen_model.precision_cost import say
from tools.deploy.infer_python.pipeline import Pipeline

Heard = dict[str, np.ndarray]
"Input -> what it got."


class Listener(Graph):
    """A graph that keeps what it last got."""

    def __init__(self, graph: Graph, heard: Heard):
        self.graph, self.heard = graph, heard

    def upload(self, name: str, array: np.ndarray) -> Value:
        return self.graph.upload(name, array)

    def fetch(self, value: Value) -> np.ndarray:
        return self.graph.fetch(value)

    def run(self, inputs: Mapping[str, np.ndarray | Value]) -> dict[str, Value]:
        for name, value in inputs.items():
            self.heard[name] = value if isinstance(value, np.ndarray) else self.graph.fetch(value)
        return self.graph.run(inputs)


def listen(contents: Contents, onnx_folder: Path, exported: Contents) -> dict[str, Heard]:
    """Graph -> what it got, of the exported graphs in ONNX Runtime."""
    files = {name: exported.files[name] for name in contents.made_of}
    engine = find_engine("onnxruntime")(0, 1, {})
    pipeline = Pipeline(onnx_folder, replace(contents, engine="onnxruntime", files=files), engine)
    heard: dict[str, Heard] = {name: {} for name in files}
    pipeline.graphs = {name: Listener(graph, heard[name]) for name, graph in pipeline.graphs.items()}
    say(pipeline)
    engine.close()
    return heard
