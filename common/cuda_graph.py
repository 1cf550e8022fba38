"""Work on a CUDA card recorded as a graph, which launches all its kernels at once.

A processor takes longer to launch a small kernel than the card takes to compute it. A graph belongs to the shapes and
the memory that it was recorded with.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import local
from typing import Any, TypeVar

import torch
from torch import Tensor

from common.device import Device
from common.program import first_line

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RUNS_BEFORE_A_RECORDING = 2
"Libraries set themselves up in these runs, which they must not do while a graph is recorded."

LARGEST_NUMBER = 16
"Graphs of one kind of work that a thread keeps."

_of_thread = local()
"""The stream and the latest graph of each thread and card. Its graphs share memory, which the card would give back with
the last of them."""
_refusing: set[torch.device] = set()
"Cards on which a recording has failed."


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
        """``work`` as a function that replays it, after some runs of it; its tensors stay where they are now."""
        if self._stream is None:
            return work
        self._stream.wait_stream(torch.cuda.current_stream())
        with self.active():
            for _ in range(RUNS_BEFORE_A_RECORDING):
                work()
        torch.cuda.synchronize()
        _, replay = _record(work, self._stream, self._pool)
        torch.cuda.synchronize()
        return replay


def is_recording() -> bool:
    """Whether this thread's work on its CUDA card is being recorded now."""
    return torch.cuda.is_current_stream_capturing()


def recorded(work: Callable[[], Result], card: torch.device) -> Callable[[], Result]:
    """``work``, all of it on this card, as a function that replays what this call records of it, not yet computing it.

    ``work`` finds its tensors where they are now and returns the same ones each time. It must not wait for the card,
    and its kernels must have run before. The graph is for the calling thread; another one of that thread, recorded or
    replayed, may overwrite what was returned, but for what ``work`` had from outside. Where the card refuses once,
    ``work`` itself is returned from then on.
    """
    if card in _refusing:
        return work
    streams, graphs = (vars(_of_thread).setdefault(name, {}) for name in ("streams", "graphs"))
    before = graphs.get(card)
    with torch.cuda.device(card):  # a new thread begins with the first one
        # A recording needs another stream than the usual one. For each stream libraries keep memory for themselves.
        streams[card] = streams.get(card) or torch.cuda.Stream()
        try:
            graphs[card], replay = _record(work, streams[card], before.pool() if before else None)
        except RuntimeError as error:
            log.warning("no CUDA graph can be recorded here, which makes it slower (%s)", first_line(error))
            _refusing.add(card)
            return work
    return replay


def recorded_by_shape(work: Callable[..., Tensor], device: Device) -> Callable[..., Tensor]:
    """``work``, which makes a tensor of tensors and must not wait for the card, as a function that replays it there for
    shapes that it has been called with before, as ``RUNS_BEFORE_A_RECORDING`` says; on other devices ``work`` itself.

    Each thread has its own graphs, the LARGEST_NUMBER that it has used last.
    """
    if device.type != "cuda":
        return work
    of_thread = local()

    def replayed(*given: Tensor) -> Tensor:
        key = tuple((each.dtype, each.shape) for each in given)
        return kept_by_thread(of_thread, key, lambda: _recorded_at_last(work, device.torch_device))(*given)

    return replayed


def kept_by_thread(of_thread: local, key: tuple, make: Callable[[], Result]) -> Result:
    """What this thread has made under this key, or makes now; it keeps the LARGEST_NUMBER used last."""
    kept: dict[tuple, Result] = vars(of_thread).setdefault("kept", {})
    kept[key] = found = kept.pop(key, None) or make()  # the latest comes last
    if len(kept) > LARGEST_NUMBER:
        del kept[next(iter(kept))]
    return found


def _recorded_at_last(work: Callable[..., Tensor], card: torch.device) -> Callable[..., Tensor]:
    """``work`` of tensors that always have the same shapes, recorded once it has run often enough."""
    runs = 0
    replay: Callable[[], Tensor] | None = None
    own: list[Tensor] = []

    def call(*given: Tensor) -> Tensor:
        nonlocal runs, replay
        if runs < RUNS_BEFORE_A_RECORDING:
            runs += 1
            return work(*given)
        if replay is None:
            own.extend(each.clone() for each in given)
            replay = recorded(partial(work, *own), card)
        for old, new in zip(own, given):
            old.copy_(new)
        return replay().clone()

    return call


def _record(work: Callable[[], Result], stream: Any, pool: Any) -> tuple[Any, Callable[[], Result]]:
    """The graph of ``work`` on this stream, with memory of this pool (None: of a new one), and its replay.

    torch.cuda.graph() would first give up all memory that is kept for later.
    """
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        graph.capture_begin(pool, capture_error_mode="thread_local")  # other threads go on using the card
        try:
            result = work()
        finally:
            graph.capture_end()
    current.wait_stream(stream)

    def replay() -> Result:
        graph.replay()
        return result

    return graph, replay
