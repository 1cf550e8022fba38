"""A text taken apart into pieces that can be spoken one at a time.

Where it is not clear whether a sentence ends, it goes on: a missing pause disturbs less than one too many.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from common.program import UserError
from tacotron2.text.braces import split_braces

LONGEST_PIECE = 150
"Symbols. 95 % of LJ Speech's clips have no more; attention to longer texts than it has seen goes astray."
STRETCH = 2000
"""Most characters that are cut by halving. No sentence is so long, but pasted text may be, and halving it, with each
half read for its symbols, would take more than linear time."""
# Seconds of silence: between paragraphs, between sentences, between the parts of a sentence that was too long.
PARAGRAPH_PAUSE = 0.6
SENTENCE_PAUSE = 0.3
CUT_PAUSE = 0.1

SENTENCE_END = re.compile(r"(?<![.!?…؟۔।])[.!?…؟۔।]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”]*")
CLAUSE_END = re.compile(r"[,;:!?…)\]][\"'”’»]*\s|[—–，、；：]|--")
BLANK = re.compile(r"\s+")
BEFORE_A_NAME = {
    "mr", "mrs", "ms", "messrs", "dr", "drs", "prof", "st", "rev", "fr", "gen", "col", "maj", "capt", "lt", "sgt",
    "hon", "pres", "gov", "sen", "rep", "mt", "ft", "vs", "cf", "viz", "approx",
}  # fmt: skip
"Abbreviations that something always follows."
BEFORE_A_NUMBER = {
    "no", "nos", "fig", "figs", "vol", "vols", "ch", "p", "pp", "sec", "art", "op",
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
}  # fmt: skip
"Abbreviations only in front of a number."
ENDS_OFTEN = {"a.m", "p.m", "a.d", "b.c"}
"Dotted abbreviations after which a capital begins a sentence, which it does not after U.S."
HIDDEN = "\0"
"Stands for every character of a pair of braces but the last while ends are looked for: no cut falls behind them."


@dataclass(frozen=True)
class Piece:
    """A part of a text that is spoken in one go."""

    text: str
    pause: float
    "Seconds of silence behind it."
    ids: list[int]
    "Of its symbols."


def take_apart(text: str, read: Callable[[str], list[int]], limit: int) -> list[Piece]:
    """The sentences of a text; one of more than ``limit`` symbols is cut where best. ``read`` gives a part's ids.

    Put together they are the text, but for blanks between them. A line ends a paragraph. What
    stands in braces stays together; UserError if that alone is beyond the limit.
    """
    pieces = []
    for line in text.splitlines():
        found = sentences(line)
        for number, sentence in enumerate(found, start=1):
            *parts, last = [part for stretch in stretches(sentence) for part in cut(stretch, read, limit)]
            pause = SENTENCE_PAUSE if number < len(found) else PARAGRAPH_PAUSE
            pieces += [*parts, replace(last, pause=pause)]
    return pieces


def sentences(line: str) -> list[str]:
    """The sentences of a line, without the blanks around them."""
    hidden = _hide_braces(line)
    # In a line all in lower case, a small letter does not show that a sentence goes on.
    has_case = hidden != hidden.lower()
    ends = [match.end() for match in SENTENCE_END.finditer(hidden) if _is_end(hidden, match, has_case)]
    parts = (line[begin:end].strip() for begin, end in pairwise([0, *ends, len(line)]))
    return [part for part in parts if part]


def stretches(sentence: str) -> Iterator[str]:
    """The sentence if it is no longer than STRETCH; else parts that are not, in linear time.

    Only a pair of braces may be longer.
    """
    hidden, begin = _hide_braces(sentence), 0
    while len(sentence) - begin > STRETCH:
        places = _places_to_cut(hidden[begin : begin + STRETCH])
        end = begin + places[-1] if places else hidden.find("}", begin + STRETCH - 1) + 1 or len(sentence)
        if stretch := sentence[begin:end].strip():
            yield stretch
        begin = end
    if rest := sentence[begin:].strip():
        yield rest


def cut(text: str, read: Callable[[str], list[int]], limit: int, about: float = 0) -> list[Piece]:
    """The text if it has no more than ``limit`` symbols; else its halves, each cut in the same way.

    A half of a text that was read has ``about`` so many symbols. If that is far too many, it is cut unread: reading
    takes most of the time.
    """
    places = _places_to_cut(_hide_braces(text))
    if about <= 2 * limit or not places:
        ids = read(text)
        if len(ids) <= limit:
            return [Piece(text, CUT_PAUSE, ids)]
        about = len(ids)
    if not places:
        raise UserError(f"too many phones in one pair of braces, use several pairs: {text[:40]}...")
    middle = min(places, key=lambda place: abs(place - len(text) / 2))
    halves = text[:middle].rstrip(), text[middle:].lstrip()
    return [piece for half in halves for piece in cut(half, read, limit, about * len(half) / len(text))]


def _is_end(hidden: str, match: re.Match, has_case: bool) -> bool:
    """Whether a sentence ends with these full stops, question or exclamation marks and quotes."""
    following = next(re.compile(r"[\s\"'“‘«(\[]*(\S?)").finditer(hidden, match.end()))[1]
    if has_case and following.islower():
        return False
    if match[0] != ".":
        return True
    word = re.findall(r"[^\s\"'“‘«(\[]*$", hidden[max(0, match.start() - 20) : match.start()])[0]
    is_initial = re.fullmatch("[A-HJ-Z]", word)
    in_dots = re.fullmatch(r"([A-Za-z]{1,2}\.)+[A-Za-z]{1,2}", word) and word.lower() not in ENDS_OFTEN
    before_a_number = word.lower() in BEFORE_A_NUMBER and following.isdigit()
    return not (is_initial or in_dots or before_a_number or word.lower() in BEFORE_A_NAME)


def _places_to_cut(hidden: str) -> list[int]:
    """Behind clauses around the middle if there are such, else between words, else between characters."""
    places = [match.end() for match in CLAUSE_END.finditer(hidden)]
    near_the_middle = [place for place in places if 0.25 < place / len(hidden) < 0.75]
    between_words = [match.end() for match in BLANK.finditer(hidden)]
    return near_the_middle or between_words or [i for i in range(1, len(hidden)) if hidden[i - 1] != HIDDEN]


def _hide_braces(text: str) -> str:
    """The text with what stands in braces made unrecognizable, at its length."""
    parts = split_braces(text)
    return "".join(HIDDEN * (len(part) + 1) + "}" if in_braces else part for part, in_braces in parts)
