"""Remarks on how a text will be spoken, for the person who wrote it."""

import unicodedata
from collections.abc import Iterable, Sequence

from tacotron2.text.alphabet import NVIDIAS, Alphabet
from tacotron2.text.braces import split_braces
from tacotron2.text.cleaners import clean
from tacotron2.text.dictionary import Dictionary, pronounce

SHOWN = 10
"Characters or phones that a remark lists."
SILENT = set('"“”«»\ufeff')
"Left out without a remark: nobody pronounces them."


def remarks(
    text: str, cleaners: Sequence[str], alphabet: Alphabet = NVIDIAS, dictionary: Dictionary | None = None
) -> list[str]:
    """A line for each way in which the text is not spoken as it is written; usually none.

    The arguments are those of ``text_to_sequence``. Raises UserError for an unknown cleaner.
    """
    pieces = list(split_braces(alphabet.normalized(text)))
    phones = [piece.split() for piece, is_phones in pieces if is_phones]
    plain = [piece for piece, is_phones in pieces if not is_phones]
    said = []
    if not all(phones) or any(brace in piece for piece in plain for brace in "{}"):
        said.append("a brace stands alone, around nothing or below the first line; write phones as {HH AH0 L OW1}")
    if unknown := [phone for some in phones for phone in some if phone not in alphabet.phones]:
        what = "phones of ARPAbet such as HH or AH0" if alphabet.is_nvidias else "symbols of the training"
        said.append(f"left out, no {what}: {_list(map(repr, unknown))}")
    if phones and text.partition("\n")[2].strip():
        said.append("left out: all below the first line, since that has phones in braces; give a line at a time")
    cleaned = pronounce(alphabet.normalized("".join(clean(piece, cleaners) for piece in plain)), dictionary or {})
    lost, changed = _characters(plain, set(cleaned), cleaners, alphabet)
    if lost:
        said.append(f"left out: {_list(map(repr, lost))}")
    if changed:
        said.append(f"transliterated: {_list(f'{c!r} as {spoken!r}' for c, spoken in changed.items())}")
    symbols = [*cleaned, *(alphabet.phones.get(phone, "") for some in phones for phone in some)]
    if not alphabet.can_speak(alphabet.ids[symbol] for symbol in symbols if symbol in alphabet.ids):
        said.append("nothing is left to speak")
    return said


def _characters(
    plain: list[str], cleaned: set[str], cleaners: Sequence[str], alphabet: Alphabet
) -> tuple[list[str], dict[str, str]]:
    """The characters that leave no symbol, and those beyond the Latin script that become Latin letters.

    ``cleaned``: the symbols of the whole after the cleaners and the dictionary.
    """
    lost, changed = [], {}
    for character in sorted(set("".join(plain)) - SILENT - set("{}")):
        spoken = alphabet.normalized(clean(character, cleaners))
        if not any(c in alphabet.ids for c in spoken):
            # "$" alone leaves nothing, but has become a word where it stands before a number; and letters that are no
            # symbols are spoken in a word of the dictionary.
            if cleaned & {character, *spoken} or not (spoken or character.isascii()):
                lost.append(character)
        elif "english_cleaners_v2" in cleaners and not character.isalpha():
            continue  # a sign, which is read as what it means
        elif (
            any(c.isalpha() for c in spoken)
            and spoken != character.lower()
            # "é" may lose its accent without a remark, unless the model knows it.
            and (not _is_latin(character) or character.lower() in alphabet.ids)
        ):
            changed[character] = spoken
    return lost, changed


def _is_latin(character: str) -> bool:
    return character.isascii() or unicodedata.name(character, "").startswith("LATIN")


def _list(items: Iterable[str]) -> str:
    items = list(dict.fromkeys(items))
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
