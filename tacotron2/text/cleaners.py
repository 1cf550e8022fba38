"""Cleaners: what is done to a text before it is taken apart into symbols.

Steps and order are the reference's, and with them its quirks: ``£12`` becomes ``pstwelve``, since
the letters that unidecode makes of ``£`` come before the numbers are read.
"""

import re
from collections.abc import Iterable
from functools import partial

from unidecode import unidecode

from common.program import UserError, shown
from tacotron2.text.english import in_words
from tacotron2.text.numbers import expand_numbers

# Replaced in this order: what an earlier one leaves behind does not begin a new word.
ABBREVIATIONS = {
    "mrs": "misess",
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}


def clean(text: str, cleaners: str | Iterable[str]) -> str:
    """The text after the named cleaners, in their order, or after the only one. UserError for an unknown name."""
    for name in [cleaners] if isinstance(cleaners, str) else cleaners:
        if name not in CLEANERS:
            raise UserError(f"there is no text cleaner {shown(name)}; choose from {', '.join(CLEANERS)}")
        text = CLEANERS[name](text)
    return text


def english_cleaners(text: str) -> str:
    """Lower-case ASCII with numbers and abbreviations written out."""
    return collapse_whitespace(expand_abbreviations(expand_numbers(to_ascii(text).lower())))


def english_cleaners_v2(text: str) -> str:
    """Lower-case ASCII, all read as a person would: amounts, dates, units, addresses, initials, ..."""
    # Digits of other scripts and superscripts are read as numbers only once they are ASCII.
    return collapse_whitespace(expand_numbers(to_ascii(in_words(text)).lower()))


def transliteration_cleaners(text: str) -> str:
    """Lower-case ASCII, for other languages than English."""
    return collapse_whitespace(to_ascii(text).lower())


def basic_cleaners(text: str) -> str:
    """Lower case, nothing else."""
    return collapse_whitespace(text.lower())


CLEANERS = {
    cleaner.__name__: cleaner
    for cleaner in (english_cleaners, english_cleaners_v2, transliteration_cleaners, basic_cleaners)
}


def to_ascii(text: str) -> str:
    # unidecode leaves out lone surrogates (bytes that were no UTF-8) as well, but warns about each.
    return unidecode(re.sub("[\ud800-\udfff]", "", text))


def expand_abbreviations(text: str, abbreviations: dict[str, str] = ABBREVIATIONS) -> str:
    """ASCII text with its abbreviations in words, which keep a capital at the beginning."""
    for abbreviation, word in abbreviations.items():
        # Looking for the bare letters first is far quicker, and most of them are not there.
        if f"{abbreviation}." in text.lower():
            in_case = partial(_in_case, word)
            text = re.sub(rf"\b{abbreviation}\.", in_case, text, flags=re.IGNORECASE)
    return text


def _in_case(word: str, match: re.Match) -> str:
    return word.capitalize() if match[0][0].isupper() else word


def collapse_whitespace(text: str) -> str:
    return re.sub(r"\s+", " ", text)
