"""Numbers, written out as the reference reads them: amounts of dollars, decimals, ordinals, years."""

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inflect

LONGEST_IN_WORDS = 36
"Digits, up to 999 decillion; inflect has no words beyond."


def expand_numbers(text: str) -> str:
    """ASCII text with its numbers in words, in lower case."""
    text = re.sub(r"[0-9][0-9,]+[0-9]", lambda match: match[0].replace(",", ""), text)
    text = re.sub(r"\$([0-9.,]*[0-9])", _dollars, text)
    # (?<![0-9]) only keeps the search linear: without it a long row of digits is tried from each of them.
    text = re.sub(r"(?<![0-9])([0-9]+)\.([0-9]+)", r"\1 point \2", text)
    text = re.sub(r"(?<![0-9])[0-9]+(?i:st|nd|rd|th)", lambda match: _in_words(match[0].lower()), text)
    return re.sub(r"[0-9]+", _number, text)


def _dollars(match: re.Match) -> str:
    """``1000.50`` -> ``1000 dollars, 50 cents``; the digits are read later."""
    if match[1].count(".") > 1:
        return f"{match[1]} dollars"
    dollars, _, cents = (part.replace(",", "").lstrip("0") for part in match[1].partition("."))
    amounts = [
        f"{number} {unit}" if number == "1" else f"{number} {unit}s"
        for number, unit in ((dollars, "dollar"), (cents, "cent"))
        if number
    ]
    return ", ".join(amounts) or "zero dollars"


def _number(match: re.Match) -> str:
    digits = match[0].lstrip("0") or "0"
    # As a year, in pairs of digits; 2001 to 2009 are read as any other number.
    if len(digits) == 4 and "1000" < digits < "3000" and not "2000" <= digits < "2010":
        if digits.endswith("00"):
            return _in_words(digits[:2]) + " hundred"
        return _in_words(digits, andword="", zero="oh", group=2).replace(", ", " ")
    return _in_words(digits, andword="")


@lru_cache(maxsize=10_000)
def _in_words(number: str, **options: Any) -> str:
    """A number, or an ordinal such as ``21st``."""
    if len(number.rstrip("stndrh").lstrip("0")) <= LONGEST_IN_WORDS:
        words = _inflect().number_to_words(number, **options)
        assert isinstance(words, str)  # not a list, which is wantlist's
        return words
    # Digit by digit, the last one with the ordinal's ending, if there is one.
    return " ".join(_in_words(digit) for digit in re.findall("[0-9][a-z]*", number))


@cache
def _inflect() -> "inflect.engine":
    """The engine, loaded when the first number comes: that takes more than a second."""
    import inflect

    return inflect.engine()
