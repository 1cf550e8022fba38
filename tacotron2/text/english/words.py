"""Numbers and letters in words."""

import re

from tacotron2.text.numbers import DIGITS, cardinal

NAMES = "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue are ess tee you vee double-you ex why zee"
LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", NAMES.split()))
"""Letters by their names, as words: models of letters and of phones read these alike, while a lone a would be an
article, a lone u a grunt."""
IRREGULAR = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
SCALES = ("hundred", "thousand", "million", "billion", "trillion")
ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}

NOUN = re.compile(r"[\s-](?!of\b|in\b|on\b|at\b|to\b|or\b|and\b|per\b|from\b|for\b|away\b|is\b|was\b|a\b)[a-z]")


def is_attributive(match: re.Match) -> bool:
    """Whether a measure stands before a noun, as in ``a 10 lb bag``, where its unit is in the singular."""
    before = match.string[max(0, match.start() - 4) : match.start()]
    return bool(re.search(r"(?:^|\s)[Aa]n?\s$", before) and NOUN.match(match.string, match.end()))


def spell(text: str) -> str:
    """The names of letters and digits, such as ``em pee three``; other characters are left out."""
    return " ".join(LETTERS.get(c) or DIGITS[int(c)] for c in text.lower() if c in LETTERS or c in "0123456789")


def digit_by_digit(text: str) -> str:
    return " ".join(DIGITS[int(c)] for c in text if c in "0123456789")


def whole(digits: str) -> str:
    """A whole number of ASCII digits, with commas or not: ``1,234``; ``007`` digit by digit."""
    digits = digits.replace(",", "")
    if digits.startswith("0"):
        return digit_by_digit(digits)
    return cardinal(digits)


def decimal(number: str) -> str:
    """``3.14`` -> ``three point one four``; ``2.0.1`` has two points. Whole numbers as ``whole``."""
    first, *others = number.split(".")
    return " point ".join([whole(first) if first else DIGITS[0], *map(digit_by_digit, others)])


def ordinal(digits: str) -> str:
    """``21`` -> ``twenty-first``."""
    words = cardinal(digits.replace(",", "").lstrip("0") or "0")
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    head, last = words[:cut], words[cut:]
    if last in IRREGULAR:
        return head + IRREGULAR[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def plural(words: str) -> str:
    """``nineteen ninety`` -> ``nineteen nineties``."""
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def year(digits: str) -> str:
    """Four digits in pairs: ``1998``, ``1905``, ``1900``; ``2000`` to ``2009`` and others as any number."""
    if len(digits) != 4 or digits[1:] == "000" or digits.startswith("200") or digits[0] == "0":
        return whole(digits)
    century, rest = cardinal(digits[:2]), digits[2:]
    if rest == "00":
        return f"{century} hundred"
    return f"{century} oh {DIGITS[int(rest[1])]}" if rest[0] == "0" else f"{century} {cardinal(rest)}"


def number(digits: str) -> str:
    """A number with nothing beside it: what may be a year is read as one, as the reference does."""
    if len(digits) == 4 and digits.isdigit() and "1000" < digits < "3000":
        return year(digits)
    return decimal(digits)


def roman(numeral: str) -> int:
    """``XIV`` -> 14; 0 for what is not a well-formed Roman numeral."""
    values = [ROMAN[c] for c in numeral]
    total = sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0]))
    return total if numeral == to_roman(total) else 0


def to_roman(value: int) -> str:
    numeral = ""
    for amount, sign in (
        (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
    ):  # fmt: skip
        numeral += max(0, value // amount) * sign
        value %= amount
    return numeral
