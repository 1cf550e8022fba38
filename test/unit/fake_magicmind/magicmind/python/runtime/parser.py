"""Reads models of other frameworks."""

from pathlib import Path

import onnx

from magicmind.python.runtime import ModelKind, Status

NEWEST = 13
"The newest opset that public code for MagicMind exports with."


class Parser:
    def __init__(self, kind):
        assert kind is ModelKind.kOnnx

    def parse(self, network, path):
        try:
            network.model = onnx.load(path)
        except Exception as error:
            return Status(f"cannot parse {Path(path).name}: {type(error).__name__}")
        opset = max(each.version for each in network.model.opset_import if not each.domain)
        if opset > NEWEST:
            return Status(f"opset {opset} is not supported")
        return Status()
