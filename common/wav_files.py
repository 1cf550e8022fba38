"""Wavs that are written piece by piece and may become longer than the format's 4 GB."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from common.audio import to_16_bit
from common.files import written_whole

HEADER = 80
"Bytes in front of the samples."
LARGEST = 2**32 - 1
"What a size of 32 bit can say: 27 hours at 22,050 Hz. A longer wav says that in its place, and its size in 64 bit."


@contextmanager
def wav_writer(path: Path, rate: int) -> Iterator[Callable[[Tensor], None]]:
    """A function that appends samples [N] in -1..1 to a 16-bit wav, which is there once it is whole.

    One that became too long for RIFF is RF64 (EBU Tech 3306).
    """
    # Neither soundfile, which would not pass on the error of a full disk, nor wave, which has no RF64.
    with written_whole(path) as file:
        file.write(bytes(HEADER))
        size = 0

        def write(samples: Tensor) -> None:
            nonlocal size
            size += file.write(to_16_bit(samples).astype("<i2").tobytes())

        yield write
        file.seek(0)
        file.write(_header(rate, size))


def _header(rate: int, size: int) -> bytes:
    whole, form = HEADER - 8 + size, struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    if whole <= LARGEST:
        first, sizes = struct.pack("<4sI4s", b"RIFF", whole, b"WAVE"), struct.pack("<4sI28x", b"JUNK", 28)
    else:
        first = struct.pack("<4sI4s", b"RF64", LARGEST, b"WAVE")
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, whole, size, size // 2, 0)
    return first + sizes + form + struct.pack("<4sI", b"data", min(size, LARGEST))
