"""The loss and the gradients of a training step as one CUDA graph.

Of a small model a step is thousands of small kernels, which take a card less time than a processor takes to launch
them. A graph launches them all at once. It belongs to the shapes of its batch and to the memory that it was made with.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.training.run import Run
from tools.voice.corpus_on_card import Batch

WARM_UP = 2
"Steps before a graph is made, in which libraries set themselves up."


class Stream:
    """Where one model's kernels run beside those of another; nothing on a CPU."""

    def __init__(self, run: Run, first: bool):
        """``first``: its kernels go before those of other streams."""
        self.run = run
        self.on_card = run.device.type == "cuda"
        self.stream = torch.cuda.Stream(priority=-1 if first else 0) if self.on_card else None
        self.pool = torch.cuda.graph_pool_handle() if self.on_card else None
        for parameter in run.precision.model_params:
            parameter.grad = torch.zeros_like(parameter)

    def step(self, loss: Callable[[Batch], Tensor], like: Batch) -> Callable[[Batch], tuple[Tensor, Tensor]]:
        """A function that leaves the clipped gradients of a batch in the parameters, for batches of the shapes of
        ``like``. It returns the loss and the norm of the gradients before; the next call overwrites them."""
        if not self.on_card:
            return lambda batch: self._compute(loss, batch)
        given = {name: tensor.clone() for name, tensor in like.items()}
        graph = torch.cuda.CUDAGraph()
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                self._compute(loss, given)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                result = self._compute(loss, given)
        torch.cuda.synchronize()

        def replay(batch: Batch) -> tuple[Tensor, Tensor]:
            for name, tensor in batch.items():
                given[name].copy_(tensor)
            graph.replay()
            return result

        return replay

    def _compute(self, loss: Callable[[Batch], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """In place: the graphs of all shapes leave their gradients in the same memory."""
        parameters = self.run.precision.model_params
        torch._foreach_zero_([parameter.grad for parameter in parameters if parameter.grad is not None])
        with self.run.precision.autocast():
            value = loss(batch)
        value.backward()
        norm = nn.utils.clip_grad_norm_(parameters, self.run.config.train_config.grad_clip)
        return value.detach(), norm
