"""Reads models of other frameworks."""

from pathlib import Path

import onnx

from magicmind.python.runtime import ModelKind, Status


class Parser:
    def __init__(self, kind):
        assert kind is ModelKind.kOnnx

    def parse(self, network, path):
        try:
            network.model = onnx.load(path)
        except Exception as error:
            return Status(f"cannot parse {Path(path).name}: {type(error).__name__}")
        return Status()
