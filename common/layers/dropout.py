"""Dropout."""

import torch
from torch import Tensor
from torch.nn import functional as F


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """``torch.nn.functional.dropout``: x [...] -> [...].

    On CPUs it takes a tenth of the time, with p rounded to a multiple of 2^-16. PyTorch draws a whole random number for
    each element, and branches; this takes 16 bits. With the same seed it drops other elements than PyTorch does.
    """
    if not training or p in (0, 1) or x.device.type != "cpu":
        return F.dropout(x, p, training)
    dropped = min(round(p * 2**16), 2**16 - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    # In the memory layout of x.
    bits = bits.view(torch.int16).as_strided(x.shape, torch.empty_like(x, device="meta").stride())
    keep = bits >= dropped - 2**15
    return x * keep.to(x.dtype).mul_(2**16 / (2**16 - dropped))
