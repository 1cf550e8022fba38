"""A stand-in for CUDA graphs on a CPU: what is recorded has no effect, and a replay repeats the operators that were
recorded on the tensors that they had then, whatever Python would do now."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

WAITS = {
    "_local_scalar_dense", "allclose", "equal", "is_nonzero", "lift_fresh", "masked_select", "nonzero", "_unique2",
}  # fmt: skip
"Operators whose result, or its size, is for the host, or that bring numbers from there."


class WaitError(Exception):
    """A graph cannot be made of such work."""


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.own: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name == "index" and any(each.dtype == torch.bool for each in _tensors(args[1]))
        if name in WAITS or by_mask or (name == "repeat_interleave" and len(_tensors(args))):
            raise WaitError("what is recorded cannot wait for the card")
        kwargs = kwargs or {}
        for tensor in _written_by(function, args, kwargs):
            if _memory(tensor) not in self.own:
                whole = tensor.new_empty(0).set_(tensor.untyped_storage())
                self.before.append((whole, whole.clone()))
                self.own.add(_memory(tensor))
        given = {_memory(each) for each in _tensors((args, kwargs))}
        result = function(*args, **kwargs)
        self.own |= {_memory(each) for each in _tensors(result)} - given
        self.calls.append((function, args, kwargs, result))
        return result

    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            for old, new in zip(_tensors(result), _tensors(function(*args, **kwargs))):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def taped(work: Callable[[], Any], card: torch.device) -> Callable[[], Any]:
    """As ``common.cuda_graph.recorded``."""
    tape = _Tape()
    with tape, ExitStack() as stack:
        for name in ("cpu", "numpy", "tolist"):
            stack.enter_context(mock.patch.object(Tensor, name, side_effect=WaitError(name)))
        result = work()
    for tensor, before in reversed(tape.before):
        tensor.copy_(before)

    def replay() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=False):  # it was converted as it was recorded
            tape.replay()
        return result

    return replay


def _tensors(tree: Any) -> list[Tensor]:
    # Not oneDNN's own weights, which nothing writes.
    return [each for each in tree_flatten(tree)[0] if isinstance(each, Tensor) and each.layout == torch.strided]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _written_by(function: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    arguments = function._schema.arguments
    given = dict(zip((each.name for each in arguments), args)) | kwargs
    written = [each.name for each in arguments if each.alias_info is not None and each.alias_info.is_write]
    return _tensors([given.get(name) for name in written])
