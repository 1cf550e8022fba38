"""The nonlinear part of an LSTM step; its matrix products are ``tacotron2.factors``'."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """gates [..., 4H] before activation, in torch's order, cell [..., H] float32 -> hidden [..., H], cell."""
    if torch.is_grad_enabled():
        return _LSTM.apply(gates, cell)
    input_gate, forget_gate, candidate, output_gate = gates.to(cell.dtype).chunk(4, dim=-1)
    cell = torch.addcmul(forget_gate.sigmoid() * cell, input_gate.sigmoid(), candidate.tanh())
    return (output_gate.sigmoid() * cell.tanh()).to(gates.dtype), cell


class _LSTM(torch.autograd.Function):
    """The same, with the gradient in half as many operators as autograd makes of it: there are
    thousands of steps, and of small tensors it is the operators that cost."""

    @staticmethod
    def forward(ctx, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        active = gates.to(cell.dtype, copy=True)
        input_gate, forget_gate, candidate, output_gate = active.chunk(4, dim=-1)
        # tanh(x) = 2 sigmoid(2x) - 1, which CPUs compute faster, and all gates at once.
        candidate.mul_(2)
        active.sigmoid_()
        after = torch.addcmul(forget_gate * cell, input_gate, _doubled_less_1(candidate))
        tanh = _doubled_less_1((2 * after).sigmoid_())
        ctx.save_for_backward(active, cell, tanh)
        ctx.dtype = gates.dtype
        return (output_gate * tanh).to(gates.dtype), after

    @staticmethod
    @once_differentiable
    def backward(ctx, of_hidden: Tensor, of_after: Tensor) -> tuple[Tensor, Tensor]:
        active, cell, tanh = ctx.saved_tensors
        input_gate, forget_gate, candidate, output_gate = active.chunk(4, dim=-1)
        of_hidden = of_hidden.to(cell.dtype)
        through = of_hidden * output_gate
        of_cell = (of_after + through).addcmul_(through * tanh, tanh, value=-1)  # tanh' = 1 - tanh^2
        of_gates = torch.empty_like(active)
        of_input, of_forget, of_candidate, of_output = of_gates.chunk(4, dim=-1)
        torch.mul(of_cell, _doubled_less_1(candidate), out=of_input)
        torch.mul(of_cell, cell, out=of_forget)
        torch.mul(of_cell, input_gate, out=of_candidate).mul_(4)
        torch.mul(of_hidden, tanh, out=of_output)
        of_gates.mul_(active).addcmul_(of_gates, active, value=-1)  # sigmoid' = sigmoid (1 - sigmoid)
        return of_gates.to(ctx.dtype), of_cell * forget_gate


def _doubled_less_1(x: Tensor) -> Tensor:
    return torch.rsub(x, -1, alpha=-2)
