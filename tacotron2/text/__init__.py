"""Text to the ids of symbols and back, equal to NVIDIA/tacotron2's.

What a text loses on this way is not said here but by ``tacotron2.text.remarks``.
"""

from collections.abc import Iterable

from tacotron2.text.braces import split_braces
from tacotron2.text.cleaners import clean
from tacotron2.text.dictionary import Dictionary, pronounce
from tacotron2.text.symbols import SYMBOL_TO_ID, SYMBOLS


def text_to_sequence(text: str, cleaners: Iterable[str], dictionary: Dictionary | None = None) -> list[int]:
    """The ids of a text such as ``Turn left on {HH AW1 S T AH0 N} Street.``

    What stands in braces is ARPAbet; the rest is cleaned, and of that the words that are in the
    dictionary become ARPAbet, too. What is no symbol is left out. UserError for an unknown cleaner.
    """
    symbols: list[str] = []
    for piece, is_phones in split_braces(text):
        if is_phones:
            symbols += ["@" + phone for phone in piece.split()]
        else:
            symbols += pronounce(clean(piece, cleaners), dictionary or {})
    return [SYMBOL_TO_ID[symbol] for symbol in symbols if symbol in SYMBOL_TO_ID]


def sequence_to_text(sequence: Iterable[int]) -> str:
    """The text of ids, ARPAbet in braces; what is no id is left out."""
    symbols = [SYMBOLS[i] for i in sequence if 0 <= i < len(SYMBOLS)]
    return "".join(f"{{{s[1:]}}}" if s.startswith("@") else s for s in symbols).replace("}{", " ")
