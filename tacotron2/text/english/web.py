"""Addresses of the web and of mail."""

import re

from tacotron2.text.english.words import LETTERS, spell

DOMAINS = "com|org|net|edu|gov|info|io|ai|dev|app|co|uk|de|fr|eu|us|ca|au|jp|cn"
MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# A match begins only where a word does, so that every character is looked at once.
URL = re.compile(
    rf"(?<![\w@.-])(?:https?://|www\.)[^\s<>\"]+|(?<![\w@.-])[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.(?:{DOMAINS})\b(?:/[^\s<>\"]*)?"
)
SCHEME = re.compile(r"^https?://")
SIGNS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "+": "plus", ":": "colon",
    "?": "question mark",
    "=": "equals", "&": "and", "#": "hash", "%": "percent", "~": "tilde",
}  # fmt: skip
ENDS_NOT = ".,;:!?)'"
"Characters that belong to the sentence, not to the address that they follow."


def read_addresses(text: str) -> str:
    """``www.a.com/b`` -> ``double-you double-you double-you dot a dot com slash b``; ``https://`` is not said."""
    return URL.sub(_address, MAIL.sub(_address, text))


def _address(match: re.Match) -> str:
    address = match[0].rstrip(ENDS_NOT)
    end = match[0][len(address) :]
    bare = SCHEME.sub("", address).rstrip("/")
    parts = re.findall(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9]", bare)
    return " ".join(SIGNS.get(part) or _word(part) for part in parts) + end


def _word(part: str) -> str:
    """A word; without a vowel, of two letters or www: letter by letter. Digits stay, to be read as a number."""
    is_spelled = part.isascii() and part.isalpha() and (len(part) == 1 or not re.search("[aeiouyAEIOUY]", part))
    is_spelled = is_spelled or part.lower() in ("io", "ai", "uk", "us", "eu", "au", "de")
    return spell(part) if is_spelled and part[0].lower() in LETTERS else part
