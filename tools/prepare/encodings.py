"""The encoding of a text file that does not say it."""

import codecs
from pathlib import Path

import chardet

from common.files import open_input
from common.program import UserError

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"Byte order marks; UTF-32's come before UTF-16's, since one of them begins with one of UTF-16's."
LARGEST = 2**28
"Bytes of a transcript file: an hour of speech has 50,000."


def read_bytes(path: Path) -> bytes:
    """The content of a text file. UserError if it cannot be read, or is no text file by its size."""
    try:
        with open_input(path) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST} bytes: name a list of clips and their texts")
    return content


def find_encoding(content: bytes) -> tuple[str, bool]:
    """The encoding by Python's name, and whether it is a guess: that of bytes without a byte order mark, which are
    not UTF-8."""
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return name, False
    zeros = [content[half::2].count(0) for half in (0, 1)]
    if any(zeros):  # in UTF-16, where a space or the end of a line has one
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be", True
    try:
        content.decode("utf-8")
        return "utf-8", False
    except UnicodeDecodeError:
        telling = b"\n".join(line for line in content.split(b"\n") if not line.isascii())
        return chardet.detect(telling)["encoding"] or "", True


def decode(content: bytes, encoding: str, what: str) -> str:
    """Text, with line ends as Python has them. UserError if the bytes are not valid in this encoding."""
    try:
        text = content.decode(encoding)
    except (LookupError, UnicodeError) as error:
        reason = "it is not known" if isinstance(error, LookupError) else f"byte {getattr(error, 'start', 0)} is bad"
        raise UserError(
            f"{what} is not text in the encoding {encoding or '(none found)'}: {reason}; say it with --encoding=NAME,"
            " such as cp1251"
        ) from error
    if "\0" in text:
        raise UserError(f"{what} is no text file")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
