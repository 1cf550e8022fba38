"""Every clip of a corpus read once, before anything is learned from it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.audio import ClipError, read_samples
from common.bad_clips import BadClips
from common.log import with_progress

READERS = 4
AHEAD = 64


def read_all(clips: Sequence[Path], sampling_rate: int, bad: BadClips) -> Iterator[tuple[int, np.ndarray]]:
    """Number and samples [N] of the clips that can be read, in their order; the others go to ``bad``.

    The samples may be a little beyond -1..1, where ``read_wav`` will clip them.
    """

    def read(clip: Path) -> np.ndarray | ClipError:
        try:
            return read_samples(clip, sampling_rate)
        except ClipError as error:
            return error

    def read_ahead() -> Iterator[np.ndarray | ClipError]:
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(clips), AHEAD):  # not all at once, which could fill the memory
                yield from pool.map(read, clips[start : start + AHEAD])

    for number, audio in enumerate(with_progress(read_ahead(), "checking clips", len(clips))):
        if isinstance(audio, ClipError):
            bad.add_error(audio, clips[number])
        else:
            yield number, audio
