"""A loop over the frames of training, which a CUDA card goes through in blocks of frames.

The kernels of a frame are small, and a training step has tens of thousands of them, which take a card less time than a
processor takes to launch them. So in each loop the work of a block is recorded once and replayed for the other blocks.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from common.cuda_graph import is_recording, recorded

FRAMES = 16
"In a block."
FEWEST = 4
"Blocks that are worth a recording, which takes the processor about as long as a block that is not recorded."

OverTime = Sequence[Tensor | None]
"Tensors [T, ...], or [T + 1, ...] of what is before each frame and after the last; None for one that is missing."


def over_frames(
    work: Callable[..., None], read: OverTime, updated: OverTime, written: OverTime, backwards: bool = False
) -> None:
    """``work(*read, *updated, *written)``, for all T frames at once or in turns for some of them, at first those at the
    beginning, or with ``backwards`` those at the end.

    ``updated`` are read and written. All else that goes from frame to frame is in tensors that ``work`` knows and
    updates in place.
    """
    over_time = [*read, *updated, *written]
    sizes = [0 if each is None else len(each) for each in over_time]
    frames = min(filter(None, sizes))
    if not _pays(over_time, frames):
        work(*over_time)
        return

    def part(start: int, end: int) -> list[Tensor | None]:
        start, end = (frames - end, frames - start) if backwards else (start, end)
        return [each if each is None else each[start : end + size - frames] for each, size in zip(over_time, sizes)]

    first = FRAMES + frames % FRAMES
    work(*part(0, first))
    replay = _as_graph(work, part(first, first + FRAMES), len(read), len(written))
    for start in range(first, frames, FRAMES):
        replay(part(start, start + FRAMES))


def _pays(over_time: OverTime, frames: int) -> bool:
    on_card = any(each is not None and each.is_cuda for each in over_time)
    # A whole step that is being recorded takes the frames along.
    return on_card and frames >= FEWEST * FRAMES and not is_recording()


def _as_graph(
    work: Callable[..., None], like: OverTime, n_read: int, n_written: int
) -> Callable[[list[Tensor | None]], None]:
    """``work`` of tensors with the shapes of ``like``, recorded."""
    own = [each if each is None else torch.empty_like(each, memory_format=torch.contiguous_format) for each in like]
    card = next(each.device for each in own if each is not None)
    replay = recorded(partial(work, *own), card)

    def replayed(given: list[Tensor | None]) -> None:
        last_read = len(own) - n_written
        _copy(given[:last_read], to=own[:last_read])
        replay()
        _copy(own[n_read:], to=given[n_read:])

    return replayed


def _copy(tensors: OverTime, to: OverTime) -> None:
    targets, sources = ([each for each in some if each is not None] for some in (to, tensors))
    torch._foreach_copy_(targets, sources)
