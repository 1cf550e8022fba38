"""Numbers, written out as the reference reads them: amounts of dollars, decimals, ordinals, years.

All of it takes linear time and, whatever comes, bounded memory.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inflect

LONGEST_IN_WORDS = 36
"Digits, up to 999 decillion; inflect has no words beyond."
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def expand_numbers(text: str) -> str:
    """ASCII text with its numbers in words, in lower case."""
    text = re.sub(r"[0-9][0-9,]+[0-9]", lambda match: match[0].replace(",", ""), text)
    text = re.sub(r"\$[0-9.,]*[0-9]", remembered(_dollars), text)
    # (?<![0-9]) only keeps the search linear: without it a long row of digits is tried from each of them.
    text = re.sub(r"(?<![0-9])([0-9]+)\.([0-9]+)", r"\1 point \2", text)
    text = re.sub(r"(?<![0-9])[0-9]+(?i:st|nd|rd|th)", remembered(_ordinal), text)
    return re.sub(r"[0-9]+", remembered(_number), text)


@cache
def remembered(read: Callable[[str], str]) -> Callable[[re.Match], str]:
    """For re.sub: reads what was found, and remembers how it read the short ones, since those come again."""
    known = lru_cache(maxsize=5000)(read)
    return lambda match: (known if len(match[0]) <= 2 * LONGEST_IN_WORDS else read)(match[0])


def _dollars(amount: str) -> str:
    """``$1000.50`` -> ``1000 dollars, 50 cents``; the digits are read later."""
    amount = amount[1:]
    if amount.count(".") > 1:
        return f"{amount} dollars"
    dollars, _, cents = (part.replace(",", "").lstrip("0") for part in amount.partition("."))
    amounts = [
        f"{number} {unit}" if number == "1" else f"{number} {unit}s"
        for number, unit in ((dollars, "dollar"), (cents, "cent"))
        if number
    ]
    return ", ".join(amounts) or "zero dollars"


def _number(digits: str) -> str:
    digits = digits.lstrip("0") or "0"
    # As a year, in pairs of digits; 2000 to 2009 are read like any other number.
    if len(digits) == 4 and "1000" < digits < "3000" and not "2000" <= digits < "2010":
        if digits.endswith("00"):
            return cardinal(digits[:2]) + " hundred"
        return _ask(digits, andword="", zero="oh", group=2).replace(", ", " ")
    return cardinal(digits)


def cardinal(digits: str) -> str:
    """``1234`` -> ``one thousand, two hundred thirty-four``; beyond LONGEST_IN_WORDS digit by digit."""
    if len(digits) > LONGEST_IN_WORDS:
        return _one_by_one(digits)
    groups = [digits[max(0, end - 3) : end] for end in range(len(digits), 0, -3)]
    words = [_hundreds(int(group)) + unit for group, unit in zip(groups, _units()) if int(group)]
    higher, below_hundred = words, []
    if len(words) > 1 and 0 < int(groups[0]) < 100:
        below_hundred, higher = words[:1], words[1:]  # without a comma: "one thousand thirty-one"
    return " ".join([", ".join(reversed(higher)), *below_hundred]) or DIGITS[0]


def _ordinal(number: str) -> str:
    """``21st`` -> ``twenty-first``."""
    number = re.sub("^0+(?=[0-9])", "", number.lower())
    if len(number) - 2 <= LONGEST_IN_WORDS:
        return _ask(number)
    return f"{_one_by_one(number[:-3])} {_ask(number[-3:])}"


def _one_by_one(digits: str) -> str:
    return " ".join(DIGITS[int(digit)] for digit in digits)


@cache
def _hundreds(number: int) -> str:
    """Up to 999. inflect takes most of a millisecond for a number, but there are few of these."""
    return _ask(str(number), andword="")


@cache
def _units() -> list[str]:
    import inflect

    return ["", *inflect.mill[1:]]


def _ask(number: str, **options: Any) -> str:
    words = _inflect().number_to_words(number, **options)
    assert isinstance(words, str)  # not a list, which is wantlist's
    return words


@cache
def _inflect() -> "inflect.engine":
    """The engine, loaded when the first number comes: that takes more than a second."""
    import inflect

    return inflect.engine()
