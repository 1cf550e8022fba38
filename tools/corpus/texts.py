"""The texts a corpus is made of, written as they are spoken."""

import re
from pathlib import Path

from common.corpus import read_lines
from common.program import UserError
from tacotron2.text.cleaners import ABBREVIATIONS, collapse_whitespace, expand_abbreviations, to_ascii
from tacotron2.text.numbers import expand_numbers
from tacotron2.text.symbols import SYMBOL_TO_ID

BUNDLED = Path(__file__).with_name("texts.txt")
"The transcripts of LJ Speech (public domain), all 13,100, shuffled, so that those of any hour are a mix."
HELD_BACK = 100
"How many lines at the end of the bundled list are for evaluation."

# "Mrs." stays: the engines read it rightly, but not "misess", which the reference's cleaners make of it.
EXPANDED = {abbreviation: word for abbreviation, word in ABBREVIATIONS.items() if abbreviation != "mrs"}

# What engines speak, or take for markup, and the model has no symbol for.
SPOKEN = {
    "%": " percent ", "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "#": " number ", "°": " degrees ",
    "£": " pounds ", "€": " euros ", "[": "(", "]": ")",
}  # fmt: skip


def find_texts(path: Path | None, held_back: bool) -> dict[int, str]:
    """The lines of a file, normalized, by their numbers from 1 on; empty ones are left out.

    Without ``path`` those of the bundled list: the training lines, or the held-back ones alone.
    UserError if there are none.
    """
    lines = dict(enumerate(read_lines(path or BUNDLED), start=1))
    lines = {number: line for number, line in lines.items() if line.strip()}
    if not lines:
        raise UserError(f"--texts={path} is empty: write a sentence on each line")
    if not path:
        evaluation = dict(list(lines.items())[-HELD_BACK:])
        # A held-back sentence may stand a second time among the others.
        sentences = set(evaluation.values())
        lines = evaluation if held_back else {n: line for n, line in lines.items() if line not in sentences}
    return {number: normalize(line) for number, line in lines.items()}


def normalize(text: str) -> str:
    """The text as it is spoken, so that speech and transcript agree; names keep their capitals.

    Numbers and abbreviations are written out as ``english_cleaners`` does, and so are amounts in pounds and
    euros and some signs. What is left is symbols of Tacotron2, and quotation marks.
    """
    text = re.sub(r"([£€]) ?([0-9.,]*[0-9])", r"\2\1", text)  # as it is spoken
    text = expand_numbers(to_ascii("".join(SPOKEN.get(character, character) for character in text)))
    text = expand_abbreviations(text, EXPANDED)
    text = "".join(character if character in SYMBOL_TO_ID or character == '"' else " " for character in text)
    return re.sub(r" +([,.;:!?)])", r"\1", collapse_whitespace(text)).strip()
