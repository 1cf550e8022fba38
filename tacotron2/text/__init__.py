"""Text to the ids of symbols and back; with NVIDIA's symbols equal to NVIDIA/tacotron2's.

What a text loses on the way is not reported here, but by ``tacotron2.text.remarks``.
"""

from collections.abc import Iterable

from tacotron2.text.alphabet import NVIDIAS, Alphabet
from tacotron2.text.braces import split_braces
from tacotron2.text.cleaners import clean
from tacotron2.text.dictionary import Dictionary, pronounce


def text_to_sequence(
    text: str, cleaners: Iterable[str], dictionary: Dictionary | None = None, alphabet: Alphabet = NVIDIAS
) -> list[int]:
    """The ids of a text such as ``Turn left on {HH AW1 S T AH0 N} Street.``

    What stands in braces is ARPAbet, or other symbols of several characters; the rest is cleaned, and those of
    its words that are in the dictionary become such symbols, too. Anything else is left out. UserError for an
    unknown cleaner.
    """
    symbols: list[str] = []
    for piece, is_phones in split_braces(alphabet.normalized(text)):
        if is_phones:
            symbols += [alphabet.phones[phone] for phone in piece.split() if phone in alphabet.phones]
        else:
            symbols += pronounce(alphabet.normalized(clean(piece, cleaners)), dictionary or {})
    return [alphabet.ids[symbol] for symbol in symbols if symbol in alphabet.ids]


def sequence_to_text(sequence: Iterable[int], alphabet: Alphabet = NVIDIAS) -> str:
    """The text of ids, symbols of several characters in braces; what is no id is left out."""
    symbols = [alphabet.symbols[i] for i in sequence if 0 <= i < len(alphabet.symbols)]
    return "".join(f"{{{s.removeprefix('@')}}}" if len(s) > 1 else s for s in symbols).replace("}{", " ")
