"""Amounts of money."""

import re

from tacotron2.text.english.words import SCALES, decimal, is_attributive, whole

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
}
"One and several of the whole, one and several of the hundredth."
COUNTRIES = {
    "US": "you ess ", "A": "Australian ", "AU": "Australian ", "C": "Canadian ", "CA": "Canadian ",
    "NZ": "New Zealand ", "HK": "Hong Kong ",
}  # fmt: skip
CODES = {"USD": "$", "GBP": "£", "EUR": "€", "JPY": "¥"}
SHORT = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million", "bn": "billion", "B": "billion",
    "b": "billion", "tn": "trillion", "T": "trillion",
}  # fmt: skip
SIGNS = "".join(CURRENCIES)
AMOUNT = r"[0-9][0-9,]*(?:\.[0-9]+)?"
SCALE = rf"(?:\s?(?:{'|'.join(SCALES)})\b|(?:mn|bn|tn|[kKmMbBT])(?![A-Za-z0-9]))"
MONEY = re.compile(
    rf"(?<![\w.])([-−]?)(US|AU|CA|NZ|HK|A|C)?([{SIGNS}])\s?({AMOUNT})({SCALE})?(?:\s?[-–]\s?[{SIGNS}]?({AMOUNT})({SCALE})?)?"
)
CODED = re.compile(rf"\b({'|'.join(CODES)})\s?(?={AMOUNT})|(?<![\w.,])({AMOUNT})\s?({'|'.join(CODES)})\b")
CENTS = re.compile(r"(?<![\w.,])([0-9]+)\s?¢")


def read_money(text: str) -> str:
    """``£12.50`` -> ``twelve pounds, fifty pence``; ``$2.5 million`` -> ``two point five million dollars``."""
    text = CODED.sub(lambda m: CODES[m[1]] if m[1] else f"{CODES[m[3]]}{m[2]}", text)
    text = MONEY.sub(_money, text)
    return CENTS.sub(lambda m: f"{whole(m[1])} cent{'s' * (m[1] != '1')}", text)


def _money(match: re.Match) -> str:
    minus, country, sign, amount, scale, second, second_scale = match.groups()
    minus = "minus " * bool(minus)
    amount, end = amount.rstrip(","), "," * amount.endswith(",") if not scale else ""
    alone = is_attributive(match)
    if second:
        upper, end = second.rstrip(","), "," * second.endswith(",")
        first = f"{decimal(amount)}{_scale(scale)}"
        return f"{minus}{first} to {decimal(upper)}{_scale(second_scale)} {_country(country)}{CURRENCIES[sign][1]}{end}"
    if scale:
        return f"{minus}{decimal(amount)}{_scale(scale)} {_country(country)}{CURRENCIES[sign][0 if alone else 1]}"
    if alone and "." not in amount:
        return f"{whole(amount)} {_country(country)}{CURRENCIES[sign][0]}"
    return f"{minus}{_plain(sign, amount, _country(country))}{end}"


def _country(code: str | None) -> str:
    return COUNTRIES[code] if code else ""


def _scale(scale: str | None) -> str:
    scale = (scale or "").strip()
    return f" {SHORT.get(scale, scale)}" if scale else ""


def _plain(sign: str, amount: str, country: str) -> str:
    one, several, one_part, several_parts = CURRENCIES[sign]
    units, point, parts = amount.partition(".")
    if point and len(parts) != 2:
        return f"{decimal(amount)} {country}{several}"
    said = []
    if units.strip("0,") or not parts.strip("0"):
        said.append(f"{whole(units)} {country}{one if units == '1' else several}")
    if parts.strip("0"):
        said.append(f"{whole(parts.lstrip('0'))} {one_part if parts == '01' else several_parts}")
    return ", ".join(said)
