"""Measures, fractions, ranges, telephone numbers, and numbers with nothing beside them."""

import re

from tacotron2.text.english.words import (
    LETTERS,
    SCALES,
    decimal,
    digit_by_digit,
    is_attributive,
    number,
    ordinal,
    plural,
    spell,
    whole,
)

UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer", "nm": "nanometer",
    "mi": "mile", "ft": "foot", "yd": "yard", "yds": "yard", "kg": "kilogram", "g": "gram", "mg": "milligram",
    "t": "ton",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter",
    "gal": "gallon", "s": "second", "sec": "second", "ms": "millisecond", "min": "minute", "mins": "minute",
    "h": "hour", "hr": "hour", "hrs": "hour", "yr": "year", "yrs": "year", "Hz": "hertz", "kHz": "kilohertz",
    "MHz": "megahertz", "GHz": "gigahertz", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour",
    "V": "volt", "A": "ampere", "mAh": "milliampere hour", "J": "joule", "kJ": "kilojoule", "kcal": "kilocalorie",
    "cal": "calorie",
    "N": "newton", "Pa": "pascal", "hPa": "hectopascal", "psi": "p s i", "dB": "decibel", "B": "byte",
    "kB": "kilobyte", "KB": "kilobyte",
    "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "kbps": "kilobit per second", "Mbps": "megabit per second",
    "Gbps": "gigabit per second", "mph": "mile per hour", "kph": "kilometer per hour", "rpm": "revolution per minute",
    "ha": "hectare", "px": "pixel",
}  # fmt: skip
DEGREE = {
    "C": "Celsius", "F": "Fahrenheit", "K": "Kelvin", "N": "north", "S": "south", "E": "east", "W": "west",
}  # fmt: skip
POWERS = {"²": "square", "2": "square", "³": "cubic", "3": "cubic"}
SAME = {"hertz", "kilohertz", "megahertz", "gigahertz", "p s i"}
"Units without a plural."
NUMBER = r"(?<![\w.,])([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)"
UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
PERCENT = re.compile(rf"{NUMBER}(?:\s?[-–]\s?([0-9]+(?:\.[0-9]+)?))?\s?([%‰])")
DEGREES = re.compile(rf"{NUMBER}\s?°(?:\s?([CFKNSEW])\b)?")
MEASURE = re.compile(
    rf"{NUMBER}(?:\s?[-–]\s?([0-9]+(?:\.[0-9]+)?))?[\s-]?({UNIT})(?:([²³23])(?![0-9]))?(?:/({UNIT})([²³23])?)?(?![\w²³'])"
)
FEET = re.compile(r"(?<![\w.,])([0-9]+)'(?:\s?([0-9]+)(?:\"|''))?(?![\w'])")
SIZE = re.compile(rf"{NUMBER}\s?[x×]\s?(?=[0-9])")
FRACTION = re.compile(r"(?<![\w.,/])(?:([0-9]+)\s)?([0-9]{1,3})/([0-9]{1,3}|1000)(?![\w/])")
FIXED = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty fifty"}
PHONE = re.compile(
    r"(?<![\w.,-])(\+[0-9]{1,3}[\s.-]?)?(\([0-9]{3}\)\s?|[0-9]{3}[.-])?([0-9]{3})[.-]([0-9]{4})(?![\w-])"
)
ORDINAL = re.compile(r"(?<![\w.,])([0-9][0-9,]*)(?:st|nd|rd|th|ST|ND|RD|TH)\b")
RESULT = r"(?=[0-9.,]+\s?(?:=|is\b|equals\b))"
SUM = re.compile(rf"(?<=[0-9])\s([-−×x*])\s{RESULT}")
LEADING_POINT = re.compile(r"(?<![\w.,])\.([0-9]+)")
RANGE = re.compile(rf"{NUMBER}\s?[-–—]\s?([0-9][0-9,]*(?:\.[0-9]+)?)(?![\w-])")
MINUS = re.compile(r"(?<![\w)])[-−](?=[0-9.])")
MIXED = re.compile(r"(?<![\w'])[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*(?!\w)")
LETTER_NUMBER = re.compile(r"(?<![\w'-])([A-Z])-([0-9]+)(?![\w-])")
SCALED = re.compile(rf"{NUMBER}\s?({'|'.join(SCALES)})\b|{NUMBER}(k|bn)\b")
NUMERO = re.compile(r"(?:\bNos?\.\s?|#\s?|№\s?)(?=[0-9])")
VERSION = re.compile(r"\bv(?=[0-9]+\.[0-9])")
LONG = re.compile(r"(?:[0-9]|(?<=[0-9])[.,](?=[0-9]))+")


def read_measures(text: str) -> str:
    """``5 km`` -> ``five kilometers``, ``50%`` -> ``fifty percent``, ``6'2"`` -> ``six feet two``."""
    text = SUM.sub(lambda m: " minus " if m[1] in "-−" else " times ", text)
    text = VERSION.sub("version ", NUMERO.sub("number ", text))
    text = PHONE.sub(_phone, text)
    text = MINUS.sub("minus ", text)
    text = PERCENT.sub(lambda m: f"{_range(m[1], m[2])} {'percent' if m[3] == '%' else 'per mille'}", text)
    text = DEGREES.sub(_degrees, text)
    text = SIZE.sub(lambda m: f"{decimal(m[1])} by ", text)
    text = FRACTION.sub(_fraction, text)
    text = FEET.sub(
        lambda m: f"{whole(m[1])} {'foot' if m[1] == '1' else 'feet'}" + (f" {whole(m[2])}" if m[2] else ""), text
    )
    return MEASURE.sub(_measure, text)


def read_numbers(text: str) -> str:
    """All that is left: ordinals, ranges, names such as ``MP3``, numbers."""
    text = ORDINAL.sub(lambda m: ordinal(m[1]), text)
    text = SCALED.sub(lambda m: f"{decimal(m[1] or m[3])} {m[2] or {'k': 'thousand', 'bn': 'billion'}[m[4]]}", text)
    text = RANGE.sub(lambda m: f"{number(m[1].rstrip(','))} to {number(m[2])}", text)
    text = LETTER_NUMBER.sub(lambda m: f"{LETTERS[m[1].lower()]} {number(m[2])}", text)
    text = MIXED.sub(_mixed, text)
    text = LEADING_POINT.sub(lambda m: f"point {digit_by_digit(m[1])}", text)
    return LONG.sub(_plain, text)


def _range(low: str, high: str | None) -> str:
    return f"{decimal(low)} to {decimal(high)}" if high else decimal(low)


def _degrees(match: re.Match) -> str:
    scale = f" {DEGREE[match[2]]}" if match[2] else ""
    return f"{decimal(match[1])} degree{'s' * (match[1] != '1')}{scale}"


def _measure(match: re.Match) -> str:
    low, high, unit, power, per, of_per = match.groups()
    name = UNITS[unit]
    several = name if (low == "1" and not high) or is_attributive(match) else _several(name)
    words = f"{POWERS[power]} {several}" if power else several
    if per:
        words += f" per {UNITS[per]}" + (" squared" if of_per in ("²", "2") else " cubed" if of_per else "")
    return f"{_range(low, high)} {words}"


def _several(name: str) -> str:
    first, space, rest = name.partition(" per ")
    if name in SAME:
        return name
    return ("feet" if first == "foot" else plural(first)) + space + rest


def _fraction(match: re.Match) -> str:
    whole_part, upper, lower = match.groups()
    if not whole_part and match[0] in FIXED:
        return FIXED[match[0]]
    if int(lower) < 2 or upper == "0" or (len(lower) > 2 and lower not in ("100", "1000")):
        return f"{whole_part + ' ' if whole_part else ''}{whole(upper)} over {whole(lower)}"
    several = upper != "1"
    if lower == "2":
        part = "halves" if several else "half"
    else:  # a hundredth, not a one hundredth
        part = ("quarter" if lower == "4" else ordinal(lower).removeprefix("one ")) + "s" * several
    if whole_part:
        upper_words = whole(upper) if several else "a"
        return f"{whole(whole_part)} and {upper_words} {part}"
    return f"{whole(upper)} {part}"


def _phone(match: re.Match) -> str:
    country, area, first, second = match.groups()
    groups = [area, first, second]
    plus = f"plus {digit_by_digit(country)}, " if country else ""
    return plus + ", ".join(digit_by_digit(group) for group in groups if group)


def _mixed(match: re.Match) -> str:
    """``MP3``, ``B2B``, ``4K``, ``COVID-19``: a few capitals letter by letter, words as words."""
    parts = re.findall(r"[A-Za-z]+|[0-9]+", match[0])
    if not {True, False} <= {part.isdigit() for part in parts}:
        return match[0]
    said = [_part(part) for part in parts]
    return " ".join(said)


def _part(part: str) -> str:
    if part.isdigit():
        return number(part)
    return spell(part) if len(part) <= 3 and part.isupper() else part


def _plain(match: re.Match) -> str:
    """A row of digits, commas and points: one number, as ``1,234.5`` and ``3.1.2``, or several, as ``1,2,3``."""
    row = match[0]
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)*", row):
        return number(row)
    return ", ".join(number(part) for part in row.split(","))
