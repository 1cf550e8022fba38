"""Dates, years and times of day."""

import re

from tacotron2.text.english.words import DIGITS, cardinal, ordinal, plural, spell, whole, year

MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
SHORT = {month[:3].lower(): month for month in MONTHS} | {"sept": "September"}
DAYS = {
    "mon": "Monday", "tue": "Tuesday", "tues": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "thur": "Thursday",
    "thurs": "Thursday", "fri": "Friday", "sat": "Saturday", "sun": "Sunday",
}  # fmt: skip
MONTH = rf"(?:{'|'.join(MONTHS)}|(?:{'|'.join(s.capitalize() for s in SHORT)})\b\.?)"
DAY = r"(?:3[01]|[12][0-9]|0?[1-9])"
YEAR = r"[12][0-9]{3}"
ISO = re.compile(rf"(?<![\w-])({YEAR})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(?![\w-])")
NUMERIC = re.compile(rf"(?<![\w/.-])([0-9]{{1,2}})([/.])([0-9]{{1,2}})\2({YEAR}|[0-9]{{2}})(?![\w/])")
MONTH_DAY = re.compile(rf"\b({MONTH})\s({DAY})(?:st|nd|rd|th)?(?![0-9:%])(?:(,?)\s({YEAR})(?![0-9]))?")
DAY_MONTH = re.compile(rf"\b(the\s)?({DAY})(?:st|nd|rd|th)?(?:\sof)?\s({MONTH})(?![a-z])(?:(,?)\s({YEAR})(?![0-9]))?")
MONTH_YEAR = re.compile(rf"\b({MONTH})\s({YEAR})(?![0-9])")
WEEKDAY = re.compile(rf"\b({'|'.join(s.capitalize() for s in DAYS)})\.?(?=,?\s(?:{'|'.join(MONTHS)}|the\s))")
DECADE = re.compile(r"(?<![\w.,])(?:([12][0-9]{2}0)'?s|['’]?([2-9]0)'?s)\b")
YEARS = re.compile(rf"(?<![\w.,/-])({YEAR})\s?[-–—]\s?({YEAR}|[0-9]{{2}})(?![\w/-])")
ERA = re.compile(
    r"(?<![\w.,])([0-9]{1,5})\s?(BCE|CE|BC|AD|B\.C\.E\.|B\.C\.|A\.D\.)(?!\w)|\b(AD|A\.D\.)\s?([0-9]{1,4})\b"
)
HALF = r"\s?(?:[ap]\.m\.|[ap]m\b|[AP]\.M\.|[AP]M\b)"
TIME = re.compile(rf"(?<![\w:.])([01]?[0-9]|2[0-4]):([0-5][0-9])(?::([0-5][0-9]))?(?:({HALF})|(?![\w:]))")
BETWEEN_TIMES = re.compile(rf"(?:(?<=[0-9mM])|(?<=[mM]\.))\s?[-–]\s?(?=[0-9]{{1,2}}(?::[0-9]{{2}}|{HALF}))")
HOUR = re.compile(rf"(?<![\w:.])(1[0-2]|0?[1-9])({HALF})")
WITH_A_STOP = re.compile(rf"(?<![\w:.])(1[0-2]|0?[1-9])\.([0-5][0-9])(?={HALF})")
OTHER_HALF = re.compile(r"(?<=[0-9]\s)([apAP]\.[mM]\.)")
"Behind a number that is no hour."


def read_dates(text: str) -> str:
    """``May 5, 1998`` -> ``May fifth, nineteen ninety-eight``; in ``3/4/2020`` the month is first."""
    text = ISO.sub(lambda m: _date(m[2], m[3], m[1]), text)
    text = NUMERIC.sub(_numeric, text)
    text = MONTH_DAY.sub(lambda m: f"{_month(m[1])} {ordinal(m[2])}{_year(m[3], m[4])}", text)
    text = DAY_MONTH.sub(lambda m: f"the {ordinal(m[2])} of {_month(m[3])}{_year(m[4], m[5])}", text)
    text = MONTH_YEAR.sub(lambda m: f"{_month(m[1])} {year(m[2])}", text)
    text = WEEKDAY.sub(lambda m: DAYS[m[1].lower()], text)
    text = YEARS.sub(lambda m: f"{year(m[1])} to {year(m[2]) if len(m[2]) == 4 else whole(m[2])}", text)
    text = DECADE.sub(lambda m: plural(year(m[1] or m[2])), text)
    return ERA.sub(lambda m: f"{spell(m[3])} {year(m[4])}" if m[3] else f"{year(m[1])} {spell(m[2])}", text)


def read_times(text: str) -> str:
    """``3:45`` -> ``three forty-five``, ``3:00`` -> ``three o'clock``, ``15:30:10`` with its seconds, ``9am-5pm`` as a
    range."""
    text = WITH_A_STOP.sub(r"\1:\2", BETWEEN_TIMES.sub(" to ", text))
    text = HOUR.sub(lambda m: f"{whole(m[1].lstrip('0'))} {_half(m[2], m)}", TIME.sub(_time, text))
    return OTHER_HALF.sub(lambda m: _half(m[1], m), text)


def _numeric(match: re.Match) -> str:
    month, sign, day, years = match.groups()
    if int(month) > 12 or sign == ".":
        month, day = day, month
    if not (0 < int(month) <= 12 and 0 < int(day) <= 31) or (sign == "." and len(years) == 2):
        return match[0]
    return _date(month, day, years)


def _date(month: str, day: str, years: str) -> str:
    return f"{MONTHS[int(month) - 1]} {ordinal(day)}, {year(years)}"


def _month(name: str) -> str:
    return SHORT.get(name.rstrip(".").lower(), name)


def _year(comma: str | None, digits: str | None) -> str:
    return f"{comma or ''} {year(digits)}" if digits else ""


def _time(match: re.Match) -> str:
    hour, minutes, seconds, half = match.groups()
    said = cardinal(hour.lstrip("0") or "0")
    if minutes == "00":
        said += "" if half else " hundred" if int(hour) > 12 or hour.startswith("0") else " o'clock"
    else:
        said += f" oh {DIGITS[int(minutes[1])]}" if minutes[0] == "0" else f" {cardinal(minutes)}"
    if seconds:
        said += f" and {cardinal(seconds.lstrip('0') or '0')} second{'s' * (seconds != '01')}"
    return f"{said} {_half(half, match)}" if half else said


def _half(half: str, match: re.Match) -> str:
    """``ay em``; the full stop of ``p.m.`` stays where it ends the text."""
    is_end = half.endswith(".") and not match.string[match.end() :].strip()
    return spell(half) + "." * is_end
