"""Inference engines behind one small interface: build a graph, load it, run it on named arrays.

``onnxruntime`` is the default, ``torch`` runs the models themselves, ``magicmind`` is for Cambricon's
cards. Each is in a module of its own, which is imported when it is wanted.
"""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.program import UserError
from tools.deploy.artifacts import Contents, Ranges, Source
from tools.deploy.signatures import Signature

ENGINES = {
    "onnxruntime": ("tools.deploy.engines.onnxruntime_engine", "OnnxRuntime"),
    "torch": ("tools.deploy.engines.torch_engine", "Torch"),
    "magicmind": ("tools.deploy.engines.magicmind_engine", "MagicMind"),
}
QUANT_MODES = ("force_float32", "force_float16", "int8")

Value = Any
"An array where an engine keeps it, maybe on a card."


@dataclass
class Build:
    """A request to build an engine of one graph."""

    graph: str
    signature: Signature
    onnx: Path
    "The exported graph."
    source: Source
    "The weights behind it, see ``models.load``."
    quant_mode: str
    ranges: Ranges
    options: dict[str, Any] = field(default_factory=dict)
    "The engine's own, from the build configuration."
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    "Of each input what it gets when the usual text is spoken, where the engine is ``calibrated`` in this mode."
    hop_length: int | None = None
    "Of the exported graph, since the checkpoint may not state it."
    how: str = ""
    "The command that exports the graph again."


class DeviceError(UserError):
    """There is no such device, or it cannot be used from here."""


class Graph(ABC):
    """A loaded graph."""

    steps_at_a_time = 1
    "Frames that ``decoder_iter`` makes before anyone looks at the gates: on a card a look costs more than a frame."

    @abstractmethod
    def upload(self, name: str, array: np.ndarray) -> Value:
        """An input as ``run`` takes it, to be used more than once."""

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray | Value]) -> dict[str, Value]:
        """The outputs by their names, which ``fetch`` and ``Engine.wait`` wait for. Inputs may be such outputs."""

    @abstractmethod
    def fetch(self, value: Value) -> np.ndarray:
        """A value as an array on the host; what is of half precision becomes float32."""

    def fetch_all(self, values: Sequence[Value]) -> np.ndarray:
        """Values of one shape, [how many, ...]."""
        return np.stack([self.fetch(value) for value in values])


class Engine(ABC):
    """An inference engine on one device.

    Args:
        device: number of the card; on a CPU that of a share of its cores.
        shares: how many processes share a CPU.
        options: the engine's own, from the build configuration.
    """

    suffix: str
    "Suffix of its files."
    takes_graphs = True
    "Whether it builds from the ONNX graphs, and not from the checkpoint behind them."
    calibrated: tuple[str, ...] = ()
    "Quant modes in which it wants samples of what goes into a graph."

    @abstractmethod
    def __init__(self, device: int, shares: int, options: Mapping[str, Any]):
        """DeviceError, if there is no such device."""

    @staticmethod
    @abstractmethod
    def build(request: Build, path: Path) -> None:
        """Write the engine's file of a graph. UserError for what it cannot build."""

    @abstractmethod
    def load(self, path: Path, graph: str, contents: Contents) -> Graph:
        """A graph from its file. UserError for a file that is not one of this engine's."""

    @property
    @abstractmethod
    def device_name(self) -> str:
        """For the report."""

    def wait(self) -> None:  # noqa: B027 - few have something to do
        """Until all that was begun is done, for those who look at the clock."""

    def close(self) -> None:  # noqa: B027 - few have something to do
        """Give the device back."""


def share_of_cores(device: int, shares: int) -> int:
    """The threads of a process, where devices are shares of a CPU. DeviceError for one beyond its cores."""
    cores = len(os.sched_getaffinity(0))
    if device >= cores:
        known = f"devices 0 to {cores - 1}" if cores > 1 else "device 0"
        raise DeviceError(f"device {device} does not exist: this process has {known}, one for each core of the CPU")
    return max(1, cores // shares)


def counted(threads: int) -> str:
    """For the name of a device."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def find_engine(name: str) -> type[Engine]:
    """The class of an engine. UserError if there is no such engine or if it is not installed."""
    if name not in ENGINES:
        raise UserError(f"--engine is {name!r}, must be one of {', '.join(ENGINES)}")
    module, attribute = ENGINES[name]
    return getattr(importlib.import_module(module), attribute)
