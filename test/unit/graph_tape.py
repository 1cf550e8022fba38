"""A stand-in for CUDA graphs on a CPU: what is recorded has no effect, and a replay repeats the operators that were
recorded on the tensors that they had then, whatever Python would do now."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default}
"Operators whose result Python sees: a card would have to be waited for."


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        self.own: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in WAITS:
            raise RuntimeError("what is recorded cannot wait for the card")
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


def taped(work: Callable[[], Any]) -> Callable[[], Any]:
    """As ``common.cuda_graph.recorded``."""
    tape = _Tape()
    with tape:
        result = work()
    for tensor, before in reversed(tape.before):
        tensor.copy_(before)

    def replay() -> Any:
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
