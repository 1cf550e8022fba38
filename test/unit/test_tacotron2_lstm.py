"""An LSTM step with its own gradient is torch's."""

import pytest
import torch
from torch import nn

from tacotron2.lstm import lstm


def inputs(dtype, *, gradient=True, shape=(3,)):
    torch.manual_seed(0)
    gates = (2 * torch.randn(*shape, 20)).to(dtype).requires_grad_(gradient)
    cell_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return gates, torch.randn(*shape, 5, dtype=cell_dtype).requires_grad_(gradient)


def test_a_step_is_torchs():
    cell_of_torch = nn.LSTMCell(4, 5).double()
    x, hidden, cell = torch.randn(3, 4).double(), torch.randn(3, 5).double(), torch.randn(3, 5).double()
    gates = x @ cell_of_torch.weight_ih.t() + hidden @ cell_of_torch.weight_hh.t()
    gates = gates + cell_of_torch.bias_ih + cell_of_torch.bias_hh
    for ours, torchs in zip(lstm(gates, cell), cell_of_torch(x, (hidden, cell))):
        assert (ours - torchs).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_the_gradient(shape):
    assert torch.autograd.gradcheck(lstm, inputs(torch.float64, shape=shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precision(dtype):
    """The cell is float32 whatever the gates are, and what needs no gradient is the same."""
    gates, cell = inputs(dtype)
    hidden, after = lstm(gates, cell)
    assert hidden.dtype == dtype and after.dtype == torch.float32
    with torch.no_grad():
        for one, other in zip((hidden, after), lstm(gates, cell)):
            assert (one - other).abs().max() < 1e-6
    (hidden.float().sum() + after.sum()).backward()
    exact_gates, exact_cell = (each.detach().double().requires_grad_() for each in (gates, cell))
    sum(each.sum() for each in lstm(exact_gates, exact_cell)).backward()
    assert gates.grad.dtype == dtype
    assert (gates.grad - exact_gates.grad).abs().max() < 2 * torch.finfo(dtype).eps
    assert (cell.grad - exact_cell.grad).abs().max() < 1e-6
