"""A pronunciation dictionary in the format of CMUdict."""

import re
from pathlib import Path
from typing import TypeAlias

from common.files import open_input
from common.program import UserError
from tacotron2.text.alphabet import NVIDIAS, Alphabet

Dictionary: TypeAlias = dict[str, list[str]]
"Lower-case word -> its symbols, such as @HH."
BUNDLED = {"cmudict": Path(__file__).with_name("cmudict.dict")}
"The Carnegie Mellon Pronouncing Dictionary, version 0.7b and later changes; its licence is beside it."


def path_of(dictionary: str | Path) -> Path:
    """The file of a dictionary, which may be given by the name of a bundled one."""
    return BUNDLED.get(str(dictionary), Path(dictionary))


def load_dictionary(path: str | Path, alphabet: Alphabet = NVIDIAS) -> Dictionary:
    """Read lines like ``HELLO  HH AH0 L OW1``, in UTF-8 or Latin-1. ``cmudict`` is the bundled dictionary.

    The phones are what may stand in braces.

    Of several pronunciations, ``WORD(1)``, the first one in the file counts; ``;;;`` begins a line of
    comment and `` #`` a comment at a line's end. UserError that names a line of another form.
    """
    dictionary: Dictionary = {}
    # Not splitlines: in Latin-1 it would find ends of lines inside of words.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        word, *phones = line.split(" #")[0].split() or [";;;"]
        if word.startswith(";;;"):
            continue
        if wrong := [phone for phone in phones if phone not in alphabet.phones]:
            what = "phone of ARPAbet, such as HH or AH0" if alphabet.is_nvidias else "phone among data_config.symbols"
            raise UserError(f"{path} line {number}: {wrong[0][:100]!r} is no {what}")
        if not phones:
            raise UserError(f"{path} line {number}: {word[:100]!r} has no phones; write it as HELLO  HH AH0 L OW1")
        word = alphabet.normalized(re.sub(r"\([0-9]+\)$", "", word).lower())
        dictionary.setdefault(word, [alphabet.phones[phone] for phone in phones])
    if not dictionary:
        raise UserError(f"{path} holds no words")
    return dictionary


def pronounce(text: str, dictionary: Dictionary) -> list[str]:
    """The symbols of a text: the phones of the words in the dictionary, the characters of all else.

    A word is letters with apostrophes inside; the parts of ``forty-two`` are two words.
    """
    if not dictionary:
        return list(text)
    symbols: list[str] = []
    for part in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*|[\W\d_]+", text):
        symbols += dictionary.get(part.lower(), part)
    return symbols


def _read(path: str | Path) -> str:
    try:
        with open_input(path_of(path)) as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"cannot read the dictionary {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
