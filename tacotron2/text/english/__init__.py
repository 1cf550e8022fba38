"""English as it is written, in words: what a person would say who reads it aloud.

Each step reads one kind of thing and leaves the rest to those after it, so their order matters: an address is found
before the numbers in it, a date before the range that ``1914-1918`` could be. All patterns begin at the beginning of a
word or a number: whatever comes, the time is linear in the text's length.
"""

import re
import unicodedata

from tacotron2.text.english.abbreviations import read_capitals, read_names
from tacotron2.text.english.calendar import read_dates, read_times
from tacotron2.text.english.measures import read_measures, read_numbers
from tacotron2.text.english.money import read_money
from tacotron2.text.english.web import read_addresses

VULGAR = re.compile("([0-9]?)([¼½¾⅐-⅞])")
SIGNS = {
    "&": " and ", "%": " percent ", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees ", "×": " times ",
    "÷": " divided by ",
    "<": " less than ", ">": " greater than ", "£": " pounds ", "€": " euros ", "¥": " yen ", "$": " dollars ",
    "§": " section ",
    "#": " hash ", "_": " ", "/": " slash ", "~": " about ", "±": " plus or minus ", "≈": " about ",
    "©": " copyright ", "®": "",
    "™": "", "•": " ", "^": " ", "|": " ", "*": " ", "\\": " backslash ",
}  # fmt: skip
SIGN = re.compile("[" + re.escape("".join(SIGNS)) + "]")
AND_OR = re.compile(r"\band/or\b", re.IGNORECASE)
BLANKS = re.compile(r"\s+")
BEFORE_A_STOP = re.compile(r"(?<=\S) (?=[,.;:!?](?:\s|$))")

STEPS = (
    read_addresses, read_names, read_money, read_dates, read_times, read_measures, read_capitals, read_numbers,
)  # fmt: skip


def in_words(text: str) -> str:
    """The text with its numbers, signs, abbreviations and addresses in words; letters keep their case."""
    begins, ends = text[:1].isspace(), text[-1:].isspace()
    text = VULGAR.sub(_vulgar, BLANKS.sub(" ", text))
    for read in STEPS:
        text = read(text)
    text = SIGN.sub(lambda m: SIGNS[m[0]], AND_OR.sub("and or", text))
    text = BEFORE_A_STOP.sub("", BLANKS.sub(" ", text)).strip()
    return " " * begins + text + " " * ends if text else " " * (begins or ends)


def _vulgar(match: re.Match) -> str:
    """``3½`` -> ``3 1/2``."""
    fraction = unicodedata.normalize("NFKC", match[2]).replace("\u2044", "/")
    return f"{match[1]} {fraction}" if match[1] else fraction
