"""The attention LSTM and its attention over all frames of teacher forcing, one node of autograd.

The same formulas as ``Decoder.attend`` and ``Attention.forward``, frame after frame:

    gates   = known + W (hidden before, context before)
    hidden  = LSTM(gates) * mask
    s       = sigmoid(keys + Q hidden + K * (weights before, sum of all weights before))
    weights = softmax over symbols of v s
    context = values weighted by them

The backward pass goes through the frames in reverse with the gradient of this state alone. All gradients of
matrices are products over many frames after it. Only s is kept for every frame and symbol; rounded to bfloat16
where the model computes in it.
Shapes: T frames, B clips, N text symbols, H channels of the LSTM, E of the encoder, A of the attention, k taps.
"""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.layers.matmul import constant_linear
from tacotron2.blocks import over_frames
from tacotron2.lstm import derivatives, room_for_gates_and_cells, step, step_backward, weight_gradient

Product: TypeAlias = Callable[[Tensor], Tensor]
"Of rows and a constant matrix."

MASKED = torch.finfo(torch.float32).min
"Energy of padding. Not -inf, which would turn an all-masked row into nan."


def attend_over_time(
    known: Tensor,
    feedback: Tensor,
    query: Tensor,
    keys: Tensor,
    kernel: Tensor,
    v: Tensor,
    values: Tensor,
    padding: Tensor,
    masks: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attend at each of T frames.

    known [T, B, 4H], the gates' part that is known beforehand, in the precision of the products with feedback
    [4H, H + E] and query [A, H]; keys [B, N, A], kernel [A, 2, k] of the location, v [A], all float32; values
    [B, N, E], padding [B, N] bool; masks [T, B, H] of dropout or None. Returns hidden state and context side by
    side [T, B, H + E], and the attention weights [T, B, N] float32.
    """
    inputs = (known, feedback, query, keys, kernel, v, values, padding, masks)
    keep = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in inputs)
    with torch.autocast(known.device.type, enabled=False):
        return _AttendOverTime.apply(*inputs, keep)


class _AttendOverTime(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        known: Tensor,
        feedback: Tensor,
        query: Tensor,
        keys: Tensor,
        kernel: Tensor,
        v: Tensor,
        values: Tensor,
        padding: Tensor,
        masks: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """See ``attend_over_time``; ``keep`` what the backward pass needs."""
        gates, cells = room_for_gates_and_cells(known)
        (steps, batch, _), symbols, taps = known.shape, keys.shape[1], kernel.shape[2]
        states = known.new_zeros(steps + 1, batch, feedback.shape[1])
        # The weights and the sum of all weights before each step and after the last, with zeros beyond the ends.
        earlier = keys.new_zeros(steps + 1, batch, 2, symbols + 2 * (taps // 2))
        kept = keys.new_empty(steps, *keys.shape, dtype=dtype_to_keep(known.dtype)) if keep else None
        attend = partial(
            _attend,
            to_gates=constant_linear(feedback.to(known.dtype)),
            to_query=constant_linear(query.to(known.dtype)),
            to_location=constant_linear(kernel.flatten(1)),
            keys=keys,
            v=v,
            values=values.to(keys.dtype),
            masked=torch.zeros_like(keys[..., 0]).masked_fill_(padding, MASKED).flatten(),
        )
        over_frames(attend, read=[masks], updated=[gates, cells, states, earlier], written=[kept])
        ctx.save_for_backward(feedback, query, kernel, v, values, masks, gates, cells, states, earlier, kept)
        return states[1:], without_ends(earlier, symbols)[1:, :, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, grad_weights: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the states [T, B, H + E] and weights [T, B, N] -> those of the tensors of ``forward``;
        none of padding and masks."""
        feedback, query, kernel, v, values, masks, gates, cells, states, earlier, kept = ctx.saved_tensors
        (steps, batch, symbols, channels), hidden_size, taps = kept.shape, cells.shape[2], kernel.shape[2]
        dtype, exact = states.dtype, gates.dtype
        weights = without_ends(earlier, symbols)[1:, :, 0]
        grad_states = grad_states.to(exact, copy=True)
        grad_known = torch.empty_like(gates, dtype=dtype)
        grad_queries = states.new_empty(steps, batch, channels)
        grad_keys = gates.new_zeros(batch, symbols, channels)
        grad_kernel, grad_v = torch.zeros_like(kernel.flatten(1)), torch.zeros_like(v)
        attend_backward = partial(
            _attend_backward,
            through_gates=constant_linear(feedback.to(dtype).t()),
            through_query=constant_linear(query.to(dtype).t()),
            # v is multiplied with here and after the loop, not with the derivative of s at each frame.
            through_location=constant_linear((v[:, None, None] * kernel).flip(2).flatten(1).to(kept.dtype).t()),
            v=v,
            values_of_channels=values.to(exact).transpose(1, 2),
            sums=(grad_keys, grad_kernel, grad_v),
            room=room_for_grad_seen(grad_keys, taps),
            grad_state_after=torch.zeros_like(grad_states[0]),
            grad_cell=torch.zeros_like(cells[0]),
            grad_earlier=gates.new_zeros(batch, 2, symbols),
        )
        over_frames(
            attend_backward,
            read=[gates, cells, masks, grad_weights, weights, earlier[:-1].to(kept.dtype), kept],
            updated=[grad_states],
            written=[grad_known, grad_queries],
            backwards=True,
        )
        return (
            grad_known,
            weight_gradient(grad_known, states[:-1], feedback),
            weight_gradient(grad_queries, states[1:, :, :hidden_size], query),
            grad_keys * v,
            (grad_kernel * v[:, None]).view_as(kernel),
            grad_v,
            torch.bmm(weights.permute(1, 2, 0), grad_states[..., hidden_size:].transpose(0, 1)).to(values.dtype),
            *[None] * 3,
        )


def _attend(
    masks: Tensor | None,
    gates: Tensor,
    cells: Tensor,
    states: Tensor,
    earlier: Tensor,
    kept: Tensor | None,
    *,
    to_gates: Product,
    to_query: Product,
    to_location: Product,
    keys: Tensor,
    v: Tensor,
    values: Tensor,
    masked: Tensor,
) -> None:
    """One frame after the other, in place.

    masks [T, B, H], gates [T, B, 4H], kept [T, B, N, A]; before each frame and after the last: cells [T + 1, B, H],
    states [T + 1, B, H + E], earlier [T + 1, B, 2, N + k - 1]; keys [B, N, A], v [A], values [B, N, E], masked [B * N].
    """
    batch, symbols, _ = keys.shape
    hidden, contexts = states[1:].tensor_split((cells.shape[2],), dim=2)
    weights, sums = without_ends(earlier, symbols).unbind(2)
    frames = zip(
        gates, cells, cells[1:], repeat(1) if masks is None else masks, states, hidden, contexts,
        windows(earlier, symbols), weights[1:], sums, sums[1:], repeat(None) if kept is None else kept,
    )  # fmt: skip
    for gate, cell, cell_after, mask, state, h, context, seen, weight, sum_before, sum_after, room in frames:
        gate += to_gates(state)
        torch.mul(step(gate, cell, cell_after), mask, out=h)
        s = to_location(seen.reshape(batch * symbols, -1)).view_as(keys)
        s.add_(keys).add_(to_query(h)[:, None]).sigmoid_()
        energies = torch.addmv(masked, s.flatten(0, 1), v).view(batch, symbols)
        weight.copy_(torch.softmax(energies, dim=1))
        torch.add(sum_before, weight, out=sum_after)
        context.copy_(torch.bmm(weight[:, None], values)[:, 0])
        if room is not None:
            room.copy_(s)


def _attend_backward(
    gates: Tensor,
    cells: Tensor,
    masks: Tensor | None,
    grad_weights: Tensor,
    weights: Tensor,
    earlier: Tensor,
    kept: Tensor,
    grad_states: Tensor,
    grad_known: Tensor,
    grad_queries: Tensor,
    *,
    through_gates: Product,
    through_query: Product,
    through_location: Product,
    v: Tensor,
    values_of_channels: Tensor,
    sums: tuple[Tensor, Tensor, Tensor],
    room: tuple[Tensor, Tensor],
    grad_state_after: Tensor,
    grad_cell: Tensor,
    grad_earlier: Tensor,
) -> None:
    """One frame before the other, in place.

    Active gates and grad_known [T, B, 4H], cells [T + 1, B, H], masks [T, B, H], weights and their gradient [T, B, N],
    earlier [T, B, 2, N + k - 1], kept [T, B, N, A], grad_states [T, B, H + E], grad_queries [T, B, A]. ``sums`` of the
    gradients of keys [B, N, A], kernel [A, 2 * k] and v [A] grow; ``room`` of ``room_for_grad_seen``. The gradients of
    what a frame hands on are updated: grad_state_after [B, H + E], grad_cell [B, H], grad_earlier [B, 2, N].
    """
    batch, symbols, _ = kept.shape[1:]
    (grad_keys, grad_kernel, grad_v), (grad_seen, around) = sums, room
    grad_before, grad_weights_before = grad_state_after, grad_earlier
    over_time = grad_states, grad_weights, grad_known, grad_queries, weights, windows(earlier, symbols), kept
    last_first = (reversed(each.unbind()) for each in over_time)
    for frame, *rest in zip(derivatives(gates, cells, masks), *last_first):
        grad_state, grad_weight, grad_gate, grad_query, weight, seen, s = rest
        grad_hidden, grad_context = grad_state.add_(grad_before).tensor_split((grad_cell.shape[1],), dim=1)
        grad_weight = torch.baddbmm(grad_weight[:, None], grad_context[:, None], values_of_channels)[:, 0]
        grad_energies = softmax_backward(weight, grad_weight.add_(grad_weights_before.sum(1)))
        s = s.to(grad_v.dtype)
        grad_v.addmv_(s.flatten(0, 1).t(), grad_energies.flatten())
        # The gradient of the sum inside sigmoid, without the factor v.
        grad_sum = torch.addcmul(s, s, s, value=-1).mul_(grad_energies[:, :, None])
        grad_keys += grad_sum
        grad_hidden += through_query(torch.mul(grad_sum.sum(1), v, out=grad_query))
        grad_sum = grad_sum.flatten(0, 1).to(kept.dtype)
        grad_kernel += grad_sum.t() @ seen.reshape(batch * symbols, -1)
        grad_seen.copy_(through_location(grad_sum).view_as(grad_seen))
        grad_sums = grad_weights_before[:, 1]
        grad_weights_before = around.sum(3)
        grad_weights_before[:, 1] += grad_sums
        grad_gate.copy_(step_backward(frame, grad_hidden, grad_cell))
        grad_before = through_gates(grad_gate)
    grad_state_after.copy_(grad_before)
    grad_earlier.copy_(grad_weights_before)


def dtype_to_keep(dtype: torch.dtype) -> torch.dtype:
    """For s and the products with its derivative: bfloat16 has the range for them, float16 has not."""
    return dtype if dtype == torch.bfloat16 else torch.promote_types(dtype, torch.float32)


def without_ends(padded: Tensor, symbols: int) -> Tensor:
    """padded [..., N + k - 1] -> [..., N], without the zeros beyond the ends."""
    reach = (padded.shape[-1] - symbols) // 2
    return padded[..., reach : reach + symbols]


def windows(padded: Tensor, symbols: int) -> Tensor:
    """What the location layer sees around each symbol: padded [T, B, 2, N + k - 1] -> a view [T, B, N, 2, k]."""
    steps, batch, _, width = padded.shape
    step_stride, clip_stride, channel_stride, _ = padded.stride()
    shape = (steps, batch, symbols, 2, width - symbols + 1)
    return padded.as_strided(shape, (step_stride, clip_stride, 1, channel_stride, 1))


def room_for_grad_seen(keys: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """Zeros for the gradient of what the location layer sees around each symbol, [B, N, 2, k], the last tap first;
    and a view of them [B, 2, N, k], the gradients that come back to each symbol.

    From one symbol that saw it to the next, the tap is the one before. The taps are in reverse order, so the distance
    in memory is always the same.
    """
    (batch, symbols, _), reach = keys.shape, taps // 2
    padded = keys.new_zeros(batch, symbols + 2 * reach, 2, taps)
    clip_stride, symbol_stride, channel_stride, _ = padded.stride()
    around = padded.as_strided(
        (batch, 2, symbols, taps), (clip_stride, channel_stride, symbol_stride, symbol_stride + 1)
    )
    return padded[:, reach : reach + symbols], around


def softmax_backward(weights: Tensor, grad_weights: Tensor) -> Tensor:
    """The gradient of the energies [B, N] from that of ``weights = softmax(energies)``."""
    weighted = weights * grad_weights
    return torch.addcmul(weighted, weights, weighted.sum(1, keepdim=True), value=-1)
