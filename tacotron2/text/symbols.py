"""The 148 symbols of NVIDIA/tacotron2; the place of a symbol in the list is its id."""

import string

VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
CONSONANTS = [
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N",
    "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH",
]  # fmt: skip

PHONES = sorted(CONSONANTS + [vowel + stress for vowel in VOWELS for stress in ("", "0", "1", "2")])
"ARPAbet; a vowel may carry its stress."

PAD = "_"
SYMBOLS = [PAD, *"-!'(),.:;? ", *string.ascii_uppercase, *string.ascii_lowercase, *("@" + phone for phone in PHONES)]

# Without the padding: an underscore in a text is no symbol.
SYMBOL_TO_ID = {symbol: i for i, symbol in enumerate(SYMBOLS) if symbol != PAD}
