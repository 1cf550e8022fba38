"""The steps of decoding as a CUDA card replays them: a step is some fifty kernels, which take longer to launch than to
compute.

A graph is for one number of clips and of symbols. So texts are filled up to one of a few lengths.
"""

from collections.abc import Callable
from functools import partial
from threading import local

import torch
from torch import Tensor

from common.cuda_graph import kept_by_thread, recorded
from tacotron2.attention import Memory
from tacotron2.decoder import Decoder
from tacotron2.decoding import (
    STEPS_BETWEEN_LOOKS,
    Linears,
    Made,
    State,
    Steps,
    Text,
    constant_linears,
    steps_of_decoder,
    take_steps,
)

SYMBOLS = 32
"The lengths of texts on a CUDA card are multiples of so many symbols."


class RecordedSteps:
    """Makes the steps of a decoder whose weights stay as they are; on a CUDA card they are recorded.

    Each thread has its own graphs.
    """

    def __init__(self, decoder: Decoder):
        self._decoder = decoder
        self._linears: dict[torch.dtype, Linears] = {}
        self._of_thread = local()

    def __call__(self, text: Text) -> Steps:
        """The steps for a text."""
        if not text.values.is_cuda:
            return steps_of_decoder(self._decoder, text)
        dtype = text.values.dtype
        if dtype not in self._linears:
            self._linears[dtype] = constant_linears(self._decoder, dtype)
        plain = partial(take_steps, self._decoder, self._linears[dtype])
        if not isinstance(text.limits, Tensor):
            text = text._replace(limits=torch.full((), text.limits, device=text.values.device))
        key = tuple((each.dtype, each.shape) for each in text.tensors())
        return partial(kept_by_thread(self._of_thread, key, lambda: _Recording(plain)).take, text)


class _Recording:
    """Steps for texts with the same shapes. The first block of them is computed plainly, the second recorded."""

    def __init__(self, plain: Callable[[Text, list[Tensor], State], tuple[list[Made], State]]):
        self._plain = plain
        self._has_run = False
        self._replay: Callable[[], list[Tensor]] | None = None

    def take(self, text: Text, masks: list[Tensor], state: State) -> tuple[list[Made], State]:
        """As ``Steps``. The state that it returns is its own: the next call changes it."""
        if len(masks) < STEPS_BETWEEN_LOOKS or not self._has_run:
            self._has_run = True
            return self._plain(text, masks, state)
        if self._replay is None:
            self._record(text, masks, state)
        if state is not self._state:
            torch._foreach_copy_(self._text.tensors() + self._state.tensors(), text.tensors() + state.tensors())
        torch.stack(masks, out=self._masks)
        assert self._replay
        return list(zip(*(each.clone() for each in self._replay()))), self._state

    def _record(self, text: Text, masks: list[Tensor], state: State) -> None:
        values, keys, padding, kernel, limits = map(torch.clone, text.tensors())
        self._text, self._state = Text(values, Memory(keys, padding, kernel), limits), state.copy()
        self._masks = torch.stack(masks)
        self._replay = recorded(self._work, text.values.device)

    def _work(self) -> list[Tensor]:
        made, after = self._plain(self._text, list(self._masks), self._state)
        for old, new in zip(self._state.tensors(), after.tensors()):
            old.copy_(new)
        return [torch.stack(each) for each in zip(*made)]
