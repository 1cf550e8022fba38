"""What the recurrences over time take, and what they are compared with."""

import torch

from tacotron2.lstm import lstm


def lstm_inputs(steps=5, dtype=torch.double):
    """Known gates, weight and masks of 3 clips and 4 channels, in this precision."""
    torch.manual_seed(0)
    known, weight = 2 * torch.randn(steps, 3, 16, dtype=torch.double), torch.randn(16, 4, dtype=torch.double)
    masks = torch.rand(steps, 3, 4, dtype=torch.double)
    return [each.to(dtype).requires_grad_() for each in (known, weight)] + [masks.to(dtype)]


def step_by_step(known, weight, masks=None):
    """The same with the step of inference and autograd."""
    hidden = known.new_zeros(known.shape[1], weight.shape[1])
    cell, steps = hidden.to(torch.promote_types(hidden.dtype, torch.float32)), []
    for t, gates in enumerate(known):
        hidden, cell = lstm(gates + hidden @ weight.t(), cell)
        hidden = hidden if masks is None else hidden * masks[t]
        steps.append(hidden)
    return torch.stack(steps)


def recurrence(steps=5, symbols=6):
    """What ``attend_over_time`` takes, of 2 clips, 3 channels of the LSTM, 4 of the encoder, 5 of the attention and 7
    taps."""
    torch.manual_seed(0)
    sizes = [(steps, 2, 12), (12, 7), (5, 3), (2, symbols, 5), (5, 2, 7), (5,), (2, symbols, 4)]
    tensors = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in sizes]
    padding = torch.zeros(2, symbols, dtype=torch.bool)
    padding[1, symbols // 2 :] = True
    return tensors, padding, torch.rand(steps, 2, 3, dtype=torch.double)


def gradients_and_result(function, tensors, constant):
    """What a function of these tensors and constants returns, and the gradients of the tensors."""
    found = function(*tensors, *constant)
    found = found if isinstance(found, tuple) else (found,)
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(each.shape, dtype=each.dtype, generator=generator).to(each.device) for each in found]
    return [*found, *torch.autograd.grad(found, tensors, weights)]
