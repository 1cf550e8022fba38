"""How good an alignment between text and speech is, in numbers that need no listening."""

from typing import NamedTuple

import torch
from torch import Tensor

STEPS_AT_THE_END = 20
"A quarter to half a second, as long as the silence behind a sentence."


class AlignmentQuality(NamedTuple):
    """Both are from 0 to 1, and near 1 for a good utterance."""

    diagonality: float
    "1: text and speech advance together; 0: as far apart as attention strewn evenly over the text, or further."
    coverage: float
    "The share of the symbols that were attended to; what is missing was skipped, or comes after a cut."


def alignment_quality(alignment: Tensor) -> AlignmentQuality:
    """Judge the alignment [S, N] of one utterance, its steps' weights over its symbols.

    Time and text are both scaled to 0..1, where symbol n is the interval [n / N, (n + 1) / N] and
    step s of the decoder the point (s + 1/2) / S. With d the distance of a step from a symbol, weighted by the
    attention and averaged over the steps, diagonality is max(0, 1 - 3 d): attention strewn evenly
    has d = 1/3. Coverage is the mean over the symbols of min(1, the sum of their weights): a symbol
    counts in full when it had a step's worth of attention.
    """
    alignment = alignment.detach().float().cpu()
    steps, symbols = alignment.shape
    distance = 3 * (alignment * off_diagonal(steps, symbols)).sum() / steps
    coverage = alignment.sum(0).clamp(max=1).mean()
    return AlignmentQuality(max(0.0, 1 - distance.item()), coverage.item())


def end_of_text(alignment: Tensor) -> int | None:
    """After how many steps of the alignment [S, N] the attention has stayed at the last symbol for STEPS_AT_THE_END.

    None if it never does.
    """
    at_the_end = alignment.argmax(dim=1) == alignment.shape[1] - 1
    if len(at_the_end) < STEPS_AT_THE_END:
        return None
    stays = at_the_end.unfold(0, STEPS_AT_THE_END, 1).all(dim=1)
    return int(stays.int().argmax()) + STEPS_AT_THE_END if stays.any() else None


def off_diagonal(steps: int, symbols: int) -> Tensor:
    """The distance [S, N] of steps from symbols, where each is scaled to 0..1."""
    step = (torch.arange(steps)[:, None] + 0.5) / steps
    symbol = (torch.arange(symbols) + 0.5) / symbols
    return ((step - symbol).abs() - 0.5 / symbols).clamp(min=0)
