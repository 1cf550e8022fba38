"""LSTMs whose inputs are known for all frames: only the product with the hidden state goes frame by frame.

There are hundreds of frames, and with small tensors it is the operators and autograd's nodes that cost time. So a
recurrence is one node of autograd with its own gradient, which takes few operators per frame. The gradient of the
matrix is one product over all frames.
Shapes: T frames, R rows (clips), H channels. The gates [..., 4H] are in torch's order.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.layers.matmul import constant_linear, product_over_rows
from tacotron2.blocks import over_frames

FRAMES_AT_A_TIME = 16
"Frames whose derivatives are computed at once in the backward pass; this many fit in the cache."


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step, for inference: gates [..., 4H] before activation, cell [..., H] float32 -> hidden [..., H], cell."""
    input_gate, forget_gate, candidate, output_gate = gates.to(cell.dtype).chunk(4, dim=-1)
    cell = torch.addcmul(forget_gate.sigmoid() * cell, input_gate.sigmoid(), candidate.tanh())
    return (output_gate.sigmoid() * cell.tanh()).to(gates.dtype), cell


def lstm_over_time(known: Tensor, weight: Tensor, masks: Tensor | None = None) -> Tensor:
    """All steps from zeros on: ``lstm`` of the gates ``known[t] + weight @ hidden[t - 1]``.

    known [T, R, 4H]; weight [4H, H], whose products have the precision of ``known``; masks [T, R, H] of dropout, by
    which each hidden state is multiplied before it feeds back. Returns the hidden states [T, R, H].
    """
    with torch.autocast(known.device.type, enabled=False):
        return _LSTMOverTime.apply(known, weight, masks)


class _LSTMOverTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: Tensor, weight: Tensor, masks: Tensor | None) -> Tensor:
        """known [T, R, 4H], weight [4H, H], masks [T, R, H] or None -> hidden states [T, R, H]."""
        product = constant_linear(weight.to(known.dtype))
        gates, cells = room_for_gates_and_cells(known)
        hidden = known.new_zeros(len(known) + 1, *cells.shape[1:])

        def go_on(masks: Tensor | None, gates: Tensor, cells: Tensor, hidden: Tensor) -> None:
            for gate, cell, cell_after, mask, h, h_after in zip(
                gates, cells, cells[1:], repeat(1) if masks is None else masks, hidden, hidden[1:]
            ):
                gate += product(h)
                torch.mul(step(gate, cell, cell_after), mask, out=h_after)

        over_frames(go_on, read=[masks], updated=[gates, cells, hidden], written=[])
        ctx.save_for_backward(weight, masks, gates, cells, hidden)
        return hidden[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradient of the hidden states [T, R, H] -> those of known [T, R, 4H] and weight [4H, H]."""
        weight, masks, gates, cells, hidden = ctx.saved_tensors
        product = constant_linear(weight.to(hidden.dtype).t())
        grad_known = torch.empty_like(gates, dtype=hidden.dtype)
        grad_cell, grad_first = torch.zeros_like(cells[0]), torch.zeros_like(hidden[0])

        def go_back(
            gates: Tensor, cells: Tensor, masks: Tensor | None, grad_hidden: Tensor, grad_known: Tensor
        ) -> None:
            grad_before = grad_first
            frames = zip(derivatives(gates, cells, masks), *map(reversed, (grad_hidden.unbind(), grad_known.unbind())))
            for frame, grad_h, grad_gate in frames:
                grad_gate.copy_(step_backward(frame, grad_before.to(cells.dtype).add_(grad_h), grad_cell))
                grad_before = product(grad_gate)
            grad_first.copy_(grad_before)

        over_frames(go_back, [gates, cells, masks, grad_hidden], [], [grad_known], backwards=True)
        return grad_known, weight_gradient(grad_known, hidden[:-1], weight), None


def room_for_gates_and_cells(known: Tensor) -> tuple[Tensor, Tensor]:
    """known [T, R, 4H] -> a copy of it to which the gates' other part is added, and the cells [T + 1, R, H], of which
    the first are zeros; both float32 at least."""
    gates = known.to(torch.promote_types(known.dtype, torch.float32), copy=True)
    steps, rows, channels = gates.shape
    return gates, gates.new_zeros(steps + 1, rows, channels // 4)


def step(gates: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """One step in place: gates [R, 4H] become active, ``after`` [R, H] the cell after ``before``. Returns the hidden
    state [R, H]."""
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=-1)
    gates[:, : 2 * before.shape[1]].sigmoid_()
    candidate.tanh_()
    output_gate.sigmoid_()
    torch.mul(forget_gate, before, out=after).addcmul_(input_gate, candidate)
    return after.tanh().mul_(output_gate)


def derivatives(gates: Tensor, cells: Tensor, masks: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
    """What ``step_backward`` takes of each frame, from the last frame to the first.

    gates [T, R, 4H] are active, cells [T + 1, R, H], masks [T, R, H].
    """
    ends = range(len(gates), 0, -FRAMES_AT_A_TIME)
    for start, end in ((max(0, end - FRAMES_AT_A_TIME), end) for end in ends):
        active, before, tanh = gates[start:end], cells[start:end], cells[start + 1 : end + 1].tanh()
        input_gate, forget_gate, candidate, output_gate = active.chunk(4, dim=-1)
        # Derivatives of the cell by the gates; by the output gate, that of the hidden state.
        local = torch.addcmul(active, active, active, value=-1)  # sigmoid' = sigmoid (1 - sigmoid)
        d_input, d_forget, d_candidate, d_output = local.chunk(4, dim=-1)
        torch.addcmul(torch.ones_like(candidate), candidate, candidate, value=-1, out=d_candidate)  # 1 - tanh^2
        d_input *= candidate
        d_forget *= before
        d_candidate *= input_gate
        d_output *= tanh
        # The derivative of the hidden state by the cell.
        hidden_by_cell = torch.addcmul(output_gate, output_gate * tanh, tanh, value=-1)
        if masks is not None:
            d_output *= masks[start:end]
            hidden_by_cell *= masks[start:end]
        yield from zip(*(reversed(each.unbind()) for each in (local, hidden_by_cell, forget_gate)))


def step_backward(frame: tuple[Tensor, ...], grad_hidden: Tensor, grad_cell: Tensor) -> Tensor:
    """The gradient of a step's gates [R, 4H] before activation, from that of its hidden state [R, H]; grad_cell [R, H],
    of the cell after the step, becomes that of the cell before."""
    grad_gates, hidden_by_cell, forget_gate = frame
    channels = grad_cell.shape[1]
    grad_cell.addcmul_(grad_hidden, hidden_by_cell)
    grad_gates[:, : 3 * channels].unflatten(1, (3, channels)).mul_(grad_cell[:, None])
    grad_gates[:, 3 * channels :] *= grad_hidden
    grad_cell *= forget_gate
    return grad_gates


def weight_gradient(grad_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the weight [O, K] of ``y = x @ weight.t()`` at every frame: grad_y [T, R, O], x [T, R, K]."""
    return product_over_rows(grad_y.flatten(0, 1), x.flatten(0, 1)).to(weight.dtype)
