"""How long an audio file says it is. libsndfile reads what there is of one that was cut off, without a word."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from common.files import open_input

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC", "OGG", "MP3")
"""libsndfile's names of the formats that show whether they were cut off: by ``missing_bytes``, or because fewer samples
come out than were announced (FLAC, MP3)."""
OPEN = 2**31 - 2**16
"From here on, a 32-bit size means that the size was not known, as for a wav that is written to a pipe."
LARGEST_OGG_PAGE = 65307
ENDS_STREAM = 4
"The flag of an Ogg stream's last page."


def missing_bytes(path: str | Path) -> int:
    """By how many bytes a file is shorter than its header says, at least; 0 for formats that do not show it.

    OSError and UserError as ``open_input``.
    """
    with open_input(path) as file:
        magic = file.read(4)
        size = os.fstat(file.fileno()).st_size
        find_ends = {
            b"RIFF": _ends_of_wav, b"RF64": _ends_of_rf64, b"riff": _ends_of_w64,
            b"FORM": _ends_of_aiff, b".snd": _ends_of_au, b"OggS": _ends_of_ogg,
        }.get(magic)  # fmt: skip
        return max([0, *(end - size for end in find_ends(file, size))]) if find_ends else 0


def _ends_of_wav(file: BinaryIO, size: int) -> Iterator[int]:
    return _ends(file, size, "little", b"data")


def _ends_of_aiff(file: BinaryIO, size: int) -> Iterator[int]:
    return _ends(file, size, "big", b"SSND")


def _ends(file: BinaryIO, size: int, order: Literal["little", "big"], samples: bytes) -> Iterator[int]:
    """Where the file ends by its first size, and where its samples do by their own."""
    first = _number(file, 4, 4, order)
    if 0 < first < OPEN:
        yield 8 + first
    start = 12
    while start + 8 <= size:
        length = _number(file, start + 4, 4, order)
        file.seek(start)
        if file.read(4) == samples:
            if length < OPEN:
                yield start + 8 + length
            return
        start += 8 + length + length % 2


def _number(file: BinaryIO, start: int, length: int, order: Literal["little", "big"]) -> int:
    file.seek(start)
    return int.from_bytes(file.read(length), order)


def _ends_of_rf64(file: BinaryIO, size: int) -> Iterator[int]:
    """By its size of 64 bit."""
    yield 8 + _number(file, 20, 8, "little")


def _ends_of_w64(file: BinaryIO, size: int) -> Iterator[int]:
    yield _number(file, 16, 8, "little")


def _ends_of_au(file: BinaryIO, size: int) -> Iterator[int]:
    length = _number(file, 8, 4, "big")
    if length < OPEN:
        yield _number(file, 4, 4, "big") + length


def _ends_of_ogg(file: BinaryIO, size: int) -> Iterator[int]:
    """Where its last page does; at least a byte behind the file, if that is not the stream's last."""
    file.seek(max(0, size - LARGEST_OGG_PAGE))
    page = b"OggS" + file.read().rpartition(b"OggS")[2]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if not lengths or not page[5] & ENDS_STREAM:
        yield size + 1
    yield size - len(page) + 27 + len(lengths) + sum(lengths)
