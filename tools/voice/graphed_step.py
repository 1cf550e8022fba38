"""The loss and the gradients of a training step, as one CUDA graph where there is a card.

A step of a small model is thousands of small kernels, which take a card less time than a processor takes to launch
them. A graph launches them all at once. It belongs to the shapes of its batch and to the memory that it was made with.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.cuda_graph import Stream
from common.training.run import Run
from tools.voice.corpus_on_card import Batch


def graphed_step(
    run: Run, stream: Stream, loss: Callable[[Batch], Tensor], like: Batch
) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """A function that leaves the clipped gradients of a batch in the parameters, for batches of the shapes of ``like``.

    It returns the loss and the norm of the gradients before clipping; the next call may overwrite them.
    """
    parameters = run.precision.model_params
    # The graphs of all shapes leave their gradients in the same memory.
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    given = {name: tensor.clone() for name, tensor in like.items()}

    def compute() -> tuple[Tensor, Tensor]:
        torch._foreach_zero_([parameter.grad for parameter in parameters if parameter.grad is not None])
        with run.precision.autocast():
            value = loss(given)
        value.backward()
        norm = nn.utils.clip_grad_norm_(parameters, run.config.train_config.grad_clip)
        return value.detach(), norm

    recorded = stream.recorded(compute)

    def step(batch: Batch) -> tuple[Tensor, Tensor]:
        for name, tensor in batch.items():
            given[name].copy_(tensor)
        return recorded()

    return step
