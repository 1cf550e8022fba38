"""The symbols that a model knows: NVIDIA's, or those of another language."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from common.corpus import read_lines
from common.program import UserError, shown
from tacotron2.text.symbols import PAD, SYMBOLS

HOW = "write one symbol on each line, in the order of their ids; a line with one space stands for the space"
"What a file of symbols looks like."
LONGEST_SYMBOL = 50
"Characters."


class Alphabet:
    """Symbols by their ids, which are their places in the list.

    A symbol is one character or several. In a text, one of several stands in braces, without the @ that it may begin
    with: {HH} is the symbol @HH, or HH where the list has no @HH. If a symbol occurs twice, its last place counts, as
    in NVIDIA's code. The padding, _ in the first place, cannot be written.
    """

    def __init__(self, symbols: Sequence[str]):
        self.symbols = list(symbols)
        self.ids = {symbol: i for i, symbol in enumerate(self.symbols) if (i, symbol) != (0, PAD)}

    @property
    def is_nvidias(self) -> bool:
        return self.symbols == SYMBOLS

    @cached_property
    def phones(self) -> dict[str, str]:
        """Text in braces -> its symbol: one with an @, as in NVIDIA's code; in another alphabet, any symbol."""
        others = {} if self.is_nvidias else {symbol: symbol for symbol in self.ids}
        return others | {symbol[1:]: symbol for symbol in self.ids if len(symbol) > 1 and symbol[0] == "@"}

    def normalized(self, text: str) -> str:
        """The text with its accents composed, as they are in the list; NVIDIA's symbols have none."""
        return text if self.is_nvidias else unicodedata.normalize("NFC", text)

    def has_letter(self, ids: Iterable[int]) -> bool:
        return any(character.isalpha() for i in ids for character in self.symbols[i])

    def can_speak(self, ids: Iterable[int]) -> bool:
        """Whether there is more than punctuation."""
        return any(character.isalnum() for i in ids for character in self.symbols[i])

    def example(self) -> str:
        """A short text with symbols of the list, to try a model on."""
        letters = [symbol for symbol in self.ids if len(symbol) == 1 and symbol.isalpha()]
        return "".join(letters[:20]) or f"{{{' '.join(list(self.phones)[:20])}}}"


NVIDIAS = Alphabet(SYMBOLS)


def read_symbols(symbols: list | str, most: int) -> list[str]:
    """The symbols of a list, or of a file with one a line, their accents composed. UserError for anything else."""
    where = symbols if isinstance(symbols, str) else ""
    found = _lines(Path(symbols)) if isinstance(symbols, str) else symbols
    for number, symbol in enumerate(found, start=1):
        if not isinstance(symbol, str) or not 0 < len(symbol) <= LONGEST_SYMBOL:
            place = f"{where} line {number}" if where else f"number {number} of the symbols"
            raise UserError(f"{place} is {shown(symbol)}, which is no symbol: {HOW if where else 'it must be text'}")
    if not 1 < len(found) <= most:
        raise UserError(f"{where or 'the list of symbols'} holds {len(found)} symbols, must be 2 to {most}")
    return [unicodedata.normalize("NFC", symbol) for symbol in found]


def _lines(path: Path) -> list[str]:
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    return lines
