"""Requests: one sentence repeated to measure speed, or the pieces of a text."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tacotron2.config
from common.program import UserError
from tacotron2.data import dictionary_of
from tacotron2.sentences import LONGEST_PIECE, take_apart
from tacotron2.text import text_to_sequence
from tacotron2.text.alphabet import NVIDIAS, Alphabet
from tacotron2.text.dictionary import Dictionary
from tacotron2.text.ends import with_end
from tacotron2.text.remarks import remarks
from tools.deploy.artifacts import Contents

log = logging.getLogger(__name__)

SENTENCE = (
    "The forms of printed letters should be beautiful, and that their arrangement on the page should be"
    " reasonable and a help to the shapeliness of the letters themselves. "
)
"The sentence of NVIDIA's and Cambricon's measurements; it is repeated up to the wanted length."


@dataclass
class Request:
    """A piece of text to speak, and where its audio goes."""

    text: str
    seed: int
    wav: Path
    "Where the audio goes, together with that of the clips before it."
    pause: float = 0.0
    "Seconds of silence behind it."
    ends: bool = True
    "Whether it is the last of its wav."


Shares = dict[int, list[list[Request]]]
"Device -> its batches."


def sentence(length: int, alphabet: Alphabet = NVIDIAS) -> str:
    """``length`` characters of SENTENCE, or of the alphabet's own example where that lacks some of its letters.

    The last is a full stop: a voice may find no end without one, and each clip would be as long as clips can be.
    """
    known = all(character in alphabet.ids for character in SENTENCE.lower() if character.isalpha())
    text = SENTENCE if known else alphabet.example()
    cut = (text * (length // len(text) + 1))[:length]
    return with_end(cut[:-1]) if length > 1 else cut


def of_sentence(
    length: int, batch: int, iterations: int, devices: list[int], seed: int, output: Path, alphabet: Alphabet = NVIDIAS
) -> Shares:
    """The sentence cut to ``length`` characters, with other random numbers in each clip."""
    shares: Shares = {device: [] for device in devices}
    for iteration in range(iterations):
        device = devices[iteration % len(devices)]
        seeds = range(seed + iteration * batch, seed + (iteration + 1) * batch)
        text = sentence(length, alphabet)
        shares[device].append([Request(text, each, output / f"dev{device}_{i}.wav") for i, each in enumerate(seeds)])
    return shares


def of_text(lines: list[str], contents: Contents, batch: int, devices: list[int], seed: int, output: Path) -> Shares:
    """Pieces of the lines as sentences, no longer than the engines take; what is lost of a line is logged.

    UserError for a text without anything to speak.
    """
    to_ids, limit = reader(contents), min(contents.ranges["text"][-1], LONGEST_PIECE)
    data = contents.tacotron2.data_config
    cleaners, alphabet, dictionary = data.text_cleaners, data.alphabet, pronunciations(contents.tacotron2)
    seeds = count(seed)
    spoken = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        for remark in remarks(line, cleaners, alphabet, dictionary):
            log.warning("line %d: %s", number, remark)
        wav = output / f"out_{number:04}.wav"
        pieces = take_apart(line, lambda part: to_ids(with_end(part)), limit)
        pieces = [piece for piece in pieces if alphabet.can_speak(piece.ids)]
        clips = [
            Request(with_end(piece.text), next(seeds), wav, piece.pause, ends=piece is pieces[-1]) for piece in pieces
        ]
        spoken += [clips] if clips else []
    if not spoken:
        raise UserError("nothing of the text can be spoken, it needs letters or digits")
    shares = {}
    for i, device in enumerate(devices[: len(spoken)]):
        own = [clip for line in spoken[i :: len(devices)] for clip in line]
        shares[device] = [own[begin : begin + batch] for begin in range(0, len(own), batch)]
    return shares


def reader(contents: Contents) -> Callable[[str], list[int]]:
    """A function from a text to the ids of its symbols, as in the training of this Tacotron2.

    UserError as ``pronunciations``.
    """
    data, dictionary = contents.tacotron2.data_config, pronunciations(contents.tacotron2)
    return lambda text: text_to_sequence(text, data.text_cleaners, dictionary, data.alphabet)


def pronunciations(config: tacotron2.config.Config) -> Dictionary | None:
    """The dictionary of the training, if there was one. UserError if it is missing or of another form."""
    try:
        return dictionary_of(config.data_config)
    except UserError as error:
        raise UserError(
            f"{error}: Tacotron2 was trained with this dictionary, put it there; or export with --config=FILE, in which"
            " data_config.dictionary is another, or is empty"
        ) from error
