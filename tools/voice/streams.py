"""Streams and graphs of a CUDA card, with which two models train at once on it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

from common.device import Device

Result = TypeVar("Result")

RUNS_BEFORE_A_RECORDING = 2
"Libraries set themselves up in these runs, which they must not do while a CUDA graph is recorded."


class Stream:
    """Work on a CUDA card that runs alongside other streams; on other devices it is ordinary work."""

    def __init__(self, device: Device, first: bool):
        """``first``: whether its work goes before that of other streams."""
        on_card = device.type == "cuda"
        self._stream = torch.cuda.Stream(priority=-1 if first else 0) if on_card else None
        self._pool = torch.cuda.graph_pool_handle() if on_card else None

    def active(self) -> AbstractContextManager:
        """Inside, this thread's work goes to this stream."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def recorded(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """``work`` as a CUDA graph: all its kernels are launched at once, on the memory they were recorded with."""
        if self._stream is None:
            return work
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with self.active():
            for _ in range(RUNS_BEFORE_A_RECORDING):
                work()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                result = work()
        torch.cuda.synchronize()

        def replay() -> Result:
            graph.replay()
            return result

        return replay
