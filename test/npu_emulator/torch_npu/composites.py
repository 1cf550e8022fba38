"""Operators that PyTorch puts together in one way for the CPU and in another for other devices.

Here they take the CPU's way, so that results are the same bit for bit.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_npu import _C

_library = torch.library.Library("aten", "IMPL")


def register() -> None:
    for name, kernel in {
        "dropout": dropout,
        "lstm.input": lstm,
        "lstm.data": packed_lstm,
        "lstm_cell": lstm_cell,
    }.items():
        # Without the second, torch.inference_mode would miss it.
        for key in ("AutogradPrivateUse1", "PrivateUse1"):
            _library.impl(name, kernel, key)


def dropout(x: Tensor, p: float, train: bool) -> Tensor:
    if p == 0 or not train:
        return x
    if p == 1:
        return x * 0.0
    return x * torch.empty_like(x).bernoulli_(1 - p).div_(1 - p)


def lstm(x, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    def run(x, *rest):
        hx, params = rest[:2], rest[2:]
        return torch.ops.aten.lstm.input(
            x, hx, params, has_biases, num_layers, 0.0, train, bidirectional, batch_first
        )  # fmt: skip

    _check_no_dropout(dropout, train)
    return run_on_host("lstm", run, x, *hx, *params)


def packed_lstm(x, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional):
    def run(x, *rest):
        hx, params = rest[:2], rest[2:]
        return torch.ops.aten.lstm.data(x, batch_sizes, hx, params, has_biases, num_layers, 0.0, train, bidirectional)

    _check_no_dropout(dropout, train)
    return run_on_host("lstm", run, x, *hx, *params)


def lstm_cell(x, hx, *params):
    """The biases in ``params`` may be None."""
    return run_on_host(
        "lstm_cell", lambda x, h, c, *params: torch.ops.aten.lstm_cell(x, (h, c), *params), x, *hx, *params
    )


def run_on_host(name: str, run: Callable[..., tuple[Tensor, ...]], *inputs: Tensor | None) -> tuple[Tensor, ...]:
    """The results of ``run`` over the device's memory, counted as one operator."""
    _C.count_or_refuse(name)
    devices = {x.device for x in inputs if x is not None}
    if len(devices) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {devices}! (aten::{name})")
    return _OnHost.apply(run, *inputs)


class _OnHost(torch.autograd.Function):
    """Holds the graph that the CPU builds, and continues the device's through it."""

    @staticmethod
    def forward(ctx, run, *inputs):
        hosts = [x if x is None else _C.host_view(x.detach()) for x in inputs]
        for host, needed in zip(hosts, ctx.needs_input_grad[1:]):
            if needed:
                host.requires_grad_()
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            results = run(*hosts)
        ctx.hosts, ctx.results = [x for x in hosts if x is not None and x.requires_grad], results
        index = next(x.device.index for x in inputs if x is not None)
        return tuple(_C.adopt(result.detach(), index) for result in results)

    @staticmethod
    def backward(ctx, *gradients):
        index = gradients[0].device.index
        host_gradients = iter(torch.autograd.grad(ctx.results, ctx.hosts, [_C.host_view(g) for g in gradients]))
        del ctx.hosts, ctx.results
        # None for `run`, and for what needs no gradient.
        return None, *(_C.adopt(next(host_gradients), index) if n else None for n in ctx.needs_input_grad[1:])


def _check_no_dropout(p: float, train: bool) -> None:
    """It would draw from the CPU's random generator."""
    if p and train:
        raise NotImplementedError("the emulated NPU has no LSTM with dropout between its layers")
