"""LSTMs over all frames, with their own gradient, are torch's."""

import pytest
import torch
from recurrences import lstm_inputs, step_by_step
from torch import nn

from tacotron2.lstm import FRAMES_AT_A_TIME, lstm, lstm_over_time


def test_a_step_is_torchs():
    cell_of_torch = nn.LSTMCell(4, 5).double()
    x, hidden, cell = torch.randn(3, 4).double(), torch.randn(3, 5).double(), torch.randn(3, 5).double()
    gates = x @ cell_of_torch.weight_ih.t() + hidden @ cell_of_torch.weight_hh.t()
    gates = gates + cell_of_torch.bias_ih + cell_of_torch.bias_hh
    for ours, torchs in zip(lstm(gates, cell), cell_of_torch(x, (hidden, cell)), strict=True):
        assert (ours - torchs).abs().max() < 1e-13


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("steps", [1, FRAMES_AT_A_TIME, 2 * FRAMES_AT_A_TIME + 3])
def test_all_steps_are_those_of_inference(steps, masked):
    known, weight, masks = lstm_inputs(steps)
    masks = masks if masked else None
    found, expected = (function(known, weight, masks) for function in (lstm_over_time, step_by_step))
    assert (found - expected).abs().max() < 1e-12
    cotangent = torch.randn_like(expected)
    gradients = (torch.autograd.grad(each, (known, weight), cotangent) for each in (found, expected))
    for ours, plain in zip(*gradients, strict=True):
        assert (ours - plain).abs().max() <= 1e-13 * plain.abs().max()


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient(masked):
    known, weight, masks = lstm_inputs(steps=3)
    assert torch.autograd.gradcheck(lstm_over_time, (known, weight, masks if masked else None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precision(dtype):
    """That of the gates is that of the hidden states; each gradient has its own tensor's."""
    known, weight, masks = lstm_inputs(dtype=dtype)
    weight = weight.detach().float().requires_grad_()
    found = lstm_over_time(known, weight, masks)
    assert found.dtype == dtype
    found.float().sum().backward()
    exact_known, exact_weight = (each.detach().double().requires_grad_() for each in (known, weight))
    expected = step_by_step(exact_known, exact_weight, masks.double())
    expected.sum().backward()
    assert known.grad.dtype == dtype and weight.grad.dtype == torch.float32
    for ours, exact in ((found, expected), (known.grad, exact_known.grad), (weight.grad, exact_weight.grad)):
        assert (ours - exact).abs().max() < 4 * torch.finfo(dtype).eps * (1 + exact.abs().max())


def test_autocast_leaves_the_precision_to_the_gates():
    known, weight, masks = lstm_inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = lstm_over_time(known, weight, masks)
    assert torch.equal(found, lstm_over_time(known, weight, masks))
