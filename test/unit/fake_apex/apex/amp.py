"""``apex.amp`` at opt level O2 with a static loss scale."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

_scaler = {"loss_scale": 1.0, "unskipped": 0}


def initialize(model: nn.Module, optimizer: Optimizer, opt_level: str, loss_scale: float, verbosity: int = 1):
    """Changes both in place. The master weights come with the first ``zero_grad`` or backward pass."""
    assert opt_level == "O2" and all(p.dtype == torch.float32 for p in model.parameters())
    # With a dynamic one the real apex leaves out steps by itself, each process on its own.
    assert loss_scale != "dynamic"
    if hasattr(optimizer, "amp"):
        raise RuntimeError("A given optimizer should only be passed through amp.initialize once.")
    _scaler.update(loss_scale=float(loss_scale), unskipped=0)
    for module in model.modules():
        if not isinstance(module, _BatchNorm):
            for param in module.parameters(recurse=False):
                param.data = param.data.half()
    model.forward = _with_casts(model.forward)
    optimizer.amp = _Masters(optimizer)
    optimizer.step, optimizer.zero_grad = optimizer.amp.step, optimizer.amp.zero_grad
    return model, optimizer


def _with_casts(forward: Callable) -> Callable:
    """Takes half precision and gives float32."""

    def cast(value, dtype):
        if isinstance(value, (list, tuple)):
            return type(value)(cast(item, dtype) for item in value)
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return lambda *inputs: cast(forward(*cast(inputs, torch.float16)), torch.float32)


class _Masters:
    """What apex hangs on an optimizer."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.plain_step = optimizer.step
        self.pairs: list[tuple[Tensor, Tensor]] | None = None
        "Half-precision weights with their masters."
        self.exact: list[Tensor] = []
        self.scaled = False
        "Whether the gradients still wait to be unscaled."

    def make(self) -> None:
        if self.pairs is not None:
            return
        self.pairs = []
        for group in self.optimizer.param_groups:
            for i, param in enumerate(group["params"]):
                if param.dtype == torch.float16:
                    group["params"][i] = param.detach().clone().float().requires_grad_()
                    self.pairs.append((param, group["params"][i]))
                else:
                    self.exact.append(param)

    def zero_grad(self) -> None:
        self.make()
        for param in (*(half for half, _ in self.pairs), *self.exact):
            if param.grad is not None:
                param.grad.zero_()
        for _, master in self.pairs:
            master.grad = None

    def unscale(self, scale: float) -> None:
        for half, master in self.pairs:
            gradient = half.grad.float() / scale
            master.grad = gradient if master.grad is None else master.grad + gradient
        for param in self.exact:
            param.grad /= scale

    @torch.no_grad()
    def step(self) -> None:
        self.plain_step()
        for half, master in self.pairs:
            half.copy_(master)
            master.grad = None


@contextmanager
def scale_loss(loss: Tensor, optimizer: Optimizer, delay_unscale: bool = False) -> Iterator[Tensor]:
    masters = optimizer.amp
    masters.make()
    if not (delay_unscale or masters.scaled):
        for half, _ in masters.pairs:
            half.grad = None
    yield loss.float() * _scaler["loss_scale"]
    if not delay_unscale:
        masters.unscale(_scaler["loss_scale"])
    masters.scaled = delay_unscale


def master_params(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def state_dict() -> dict:
    return {"loss_scaler0": dict(_scaler)}


def load_state_dict(state: dict) -> None:
    assert list(state) == ["loss_scaler0"]
    _scaler.update(state["loss_scaler0"])
