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
        _first_two(active).sigmoid_()
        candidate.tanh_()
        output_gate.sigmoid_()
        after = torch.addcmul(forget_gate * cell, input_gate, candidate)
        tanh = after.tanh()
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
        of_cell = (of_after + through).addcmul_(through * tanh, tanh, value=-1)
        of_gates = torch.empty_like(active)
        of_input, of_forget, of_candidate, of_output = of_gates.chunk(4, dim=-1)
        torch.mul(of_cell, candidate, out=of_input)
        torch.mul(of_cell, cell, out=of_forget)
        torch.mul(of_hidden, tanh, out=of_output)
        torch.mul(of_cell, input_gate, out=of_candidate)
        # The derivative of tanh is 1 - tanh^2, that of the sigmoid s is s (1 - s).
        of_candidate.addcmul_(of_input * input_gate, candidate, value=-1)
        for of_gate, gate in ((_first_two(of_gates), _first_two(active)), (of_output, output_gate)):
            of_gate.mul_(gate).addcmul_(of_gate, gate, value=-1)
        return of_gates.to(ctx.dtype), of_cell * forget_gate


def _first_two(gates: Tensor) -> Tensor:
    """Input and forget gate together."""
    return gates[..., : gates.shape[-1] // 2]
