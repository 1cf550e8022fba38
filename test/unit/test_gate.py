"""The gate of WaveGlow's layers by each of its ways, against its formula. That of CUDA cards runs on a CPU, too."""

import pytest
import torch

from waveglow.wn import _Gate, _gated, _GateOnCard


def formula(x, condition):
    filter_, gate = (x + condition).chunk(2, dim=1)
    return torch.tanh(filter_) * torch.sigmoid(gate)


def numbers(dtype=torch.float64):
    """x and condition [B, 2C, L], up to where tanh and sigmoid are flat."""
    generator = torch.Generator().manual_seed(1)
    return [(5 * torch.randn(2, 6, 40, generator=generator)).to(dtype).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("gate", [_Gate, _GateOnCard])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_those_of_the_formula(gate, channels_last):
    given = numbers()
    weight = torch.randn(2, 3, 40, dtype=torch.float64)
    ours, expected = [], []
    for compute, found in ((lambda x, condition: gate.apply(x.clone(), condition), ours), (formula, expected)):
        x, condition = (each.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else each for each in given)
        result = compute(x, condition)
        found += [result, *torch.autograd.grad((result * weight).sum(), given)]
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("gate", [_Gate, _GateOnCard])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_gradient_lies_in_memory_as_the_input_does(gate, channels_last):
    """The convolution in front of the gate wants it so."""
    x, condition = (each.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else each for each in numbers())
    seen = []
    given = x.clone()
    given.register_hook(lambda gradient: seen.append(gradient.stride()))
    gate.apply(given, condition).sum().backward()
    assert seen == [x.stride()]


@pytest.mark.parametrize("gate", [_Gate, _GateOnCard])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_the_formula(gate, dtype):
    """Twice its error at most, and that of two roundings."""
    exact = formula(*(each.double() for each in numbers(dtype)))
    limit = 2 * (formula(*numbers(dtype)).double() - exact).abs().max() + 2 * torch.finfo(dtype).eps
    x, condition = numbers(dtype)
    assert (gate.apply(x.clone(), condition).double() - exact).abs().max() < limit


def test_a_graph_of_onnx_has_the_formula(monkeypatch):
    """Three operators, where the others are six."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    x, condition = numbers()
    before = x.clone()
    assert torch.equal(_gated(x, condition), formula(x, condition))
    assert torch.equal(x, before)


def test_the_gate_spoils_nothing_unnoticed():
    """It overwrites its input, which the backward pass of exp, unlike that of a convolution, wants to see again."""
    needed = torch.ones(1, 4, 5, requires_grad=True).exp()
    gated = _Gate.apply(needed, torch.ones(1, 4, 5))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gated.sum().backward()
