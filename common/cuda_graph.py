"""Work on a CUDA card recorded as a graph, which launches all its kernels at once.

A processor takes longer to launch a small kernel than the card takes to compute it.
"""

from collections.abc import Callable
from threading import local
from typing import TypeVar

import torch

Result = TypeVar("Result")

_of_thread = local()
"The latest graph of each thread. Their graphs share memory, which the card would give back with the last of them."


def recorded(work: Callable[[], Result]) -> Callable[[], Result]:
    """``work`` as a function that replays what this call records of it, without computing it yet.

    ``work`` finds its tensors where they are now and returns the same ones each time. It must not wait for the card. It
    must have run before, since libraries set themselves up in the first run. The graph is for the calling thread, until
    it records another.
    """
    graph, before = torch.cuda.CUDAGraph(), getattr(_of_thread, "graph", None)
    pool = before.pool() if before else None
    # A recording needs a stream of its own. torch.cuda.graph() would give up all memory that is kept for later, too.
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        graph.capture_begin(pool, capture_error_mode="thread_local")  # other threads go on using the card
        try:
            result = work()
        finally:
            graph.capture_end()
    current.wait_stream(stream)
    _of_thread.graph = graph

    def replay() -> Result:
        graph.replay()
        return result

    return replay
