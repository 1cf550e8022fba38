"""What Tacotron2 makes of the texts: symbols, and what is lost on the way."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tacotron2.config import DataConfig
from tacotron2.text import sequence_to_text, text_to_sequence
from tacotron2.text.cleaners import clean
from tools.prepare.problems import Kind, Problem
from tools.prepare.sources import Item

TRIED = 20
"Texts in which a sign is looked at."
PAUSES = set("\"“”„«»‘’'…—–")
"Marks that nobody pronounces: that they are lost is no fault of a text."


@dataclass(frozen=True)
class Sign:
    """A character of the texts."""

    count: int
    read_as: str
    "What the cleaners make of it alone."
    lost: bool
    "Whether nothing of it is learned, in some text at least."


def count_symbols(items: Sequence[Item], config: DataConfig) -> tuple[dict[str, int], list[Problem]]:
    """The number of symbols of each item with a text, by its name; a text with nothing to speak is a problem."""
    counts, problems = {}, []
    for item in items:
        if item.text is None:
            continue
        ids = text_to_sequence(item.text, config.text_cleaners, alphabet=config.alphabet)
        if config.alphabet.has_letter(ids):
            counts[item.name] = len(ids)
        elif item.text:
            left = f"of its text {item.text[:50]!r} nothing is left to speak"
            problems.append(Problem(Kind.TEXT, f"{item.where}: {left}", item.name))
        else:
            problems.append(Problem(Kind.TEXT, f"{item.where}: its text is empty", item.name))
    return counts, problems


def find_signs(texts: Sequence[str], config: DataConfig) -> dict[str, Sign]:
    """The characters of the texts, the most frequent first."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for text in texts:
        counts.update(text)
        for character in set(text):
            if len(some := examples.setdefault(character, [])) < TRIED:
                some.append(text)
    return {
        character: Sign(count, clean(character, config.text_cleaners), _is_lost(character, examples[character], config))
        for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if character not in " {}"
    }


def _is_lost(character: str, texts: list[str], config: DataConfig) -> bool:
    """Whether one of the texts is learned as it would be without the character.

    ``$`` alone is nothing, too, but in front of a number it is read.
    """

    def learned(text: str) -> str:
        ids = text_to_sequence(text, config.text_cleaners, alphabet=config.alphabet)
        return sequence_to_text(ids, config.alphabet).replace(" ", "")

    return not learned(character) and any(learned(text) == learned(text.replace(character, "")) for text in texts)


def judge_texts(items: Sequence[Item], signs: dict[str, Sign], config: DataConfig) -> list[Problem]:
    """Texts with signs that are lost, with numbers, and those that occur twice."""
    lost = {character for character, sign in signs.items() if sign.lost} - PAUSES
    first: dict[str, Item] = {}
    problems = []
    for item in items:
        if not item.text:
            continue
        if of_it := sorted(lost & set(item.text)):
            what = f"{item.where}: not learned of its text: {' '.join(of_it)}"
            problems.append(Problem(Kind.LOST, what, item.name, len(of_it)))
        if numbers := re.findall(r"\S*\d\S*", item.text):
            read = clean(" ".join(numbers), config.text_cleaners).strip()
            what = f"{item.where}: {' '.join(numbers)[:60]!r} is read {read[:100]!r}"
            problems.append(Problem(Kind.NUMBERS, what, item.name, len(numbers)))
        other = first.setdefault(item.text.casefold(), item)
        if other is not item:
            what = f"{item.where}: has the text of {other.where}: {item.text[:60]!r}"
            problems.append(Problem(Kind.SAME_TEXT, what, item.name, len(item.text)))
    return problems
