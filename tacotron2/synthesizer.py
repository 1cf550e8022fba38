"""Texts of any length to mel spectrograms, with a trained Tacotron2."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from common import inference
from common.audio import MelSpectrogram
from common.device import Device
from common.hints import NAME_SYMBOLS, Hints
from common.precision import amp_level
from common.program import UserError
from tacotron2.alignment import alignment_quality, end_of_text
from tacotron2.config import Config, build_mel, build_model, check_symbols
from tacotron2.model import Utterance
from tacotron2.recorded_steps import SYMBOLS, RecordedSteps
from tacotron2.sentences import LONGEST_PIECE, Piece, take_apart
from tacotron2.text import text_to_sequence
from tacotron2.text.cleaners import clean
from tacotron2.text.dictionary import load_dictionary
from tacotron2.text.ends import with_end

log = logging.getLogger(__name__)

Item = TypeVar("Item")

TRIES = 3
WINDOW = 32
"Pieces whose spectrograms are in memory at a time."
SYMBOLS_IN_BATCH = 2048
"With padding."
# Attention that follows LJ Speech's recordings was measured at a diagonality of 0.68 to 0.91 and a coverage of 0.88
# to 1, attention gone astray at 0 to 0.5 and 0.5 to 0.8. With simulated alignments lone words come down to 0.61; 30 %
# of a text skipped takes the coverage to 0.71; an end 30 % too early the diagonality to 0.58, 30 % of babble behind
# the end to 0.44. A false alarm costs time, so the limits are low.
LEAST_DIAGONALITY = 0.6
LEAST_COVERAGE = 0.75


@dataclass
class Spoken:
    """A piece of text as a mel spectrogram; the best of some tries."""

    text: str
    utterance: Utterance
    "On the CPU."
    flaw: str
    "What is wrong with it; empty if nothing is."


class BaseSynthesizer(ABC):
    """Texts of any length to mel spectrograms; a subclass says how the model runs.

    Attributes: ``path`` for messages, ``config`` as far as the checkpoint tells it, ``alphabet``, ``cleaners``,
    ``dictionary``, ``longest`` (symbols of a piece), ``bytes`` (of the weights).
    """

    bytes: int

    def __init__(
        self,
        path: str | Path,
        config: Config,
        dictionary: str | None = None,
        cleaners: Sequence[str] = (),
        longest: int = LONGEST_PIECE,
    ):
        """Arguments as those of ``Synthesizer``. UserError for a dictionary that is missing, and if the symbols of
        the checkpoint are not known."""
        check_symbols(path, config, NAME_SYMBOLS)
        self.path, self.config, self.longest = path, config, longest
        self.alphabet = config.data_config.alphabet
        self.cleaners = list(cleaners) or config.data_config.text_cleaners
        dictionary = config.data_config.dictionary if dictionary is None else dictionary
        self.dictionary = load_dictionary(dictionary, self.alphabet) if dictionary else None

    @abstractmethod
    def infer(self, texts: list[list[int]], seeds: list[int]) -> list[Utterance]:
        """Texts as ids and a seed for each, which decides its prenet dropout -> what is spoken, each text as if it
        was alone."""

    def symbols(self, text: str) -> list[int]:
        """The ids of a text, spoken as a sentence; none if nothing of it can be spoken."""
        symbols = self._read(text)
        return symbols if self.alphabet.can_speak(symbols) else []

    def _read(self, text: str) -> list[int]:
        return text_to_sequence(with_end(text), self.cleaners, self.dictionary, self.alphabet)

    def take_apart(self, text: str) -> list[Piece]:
        """The pieces in which to speak a text of any length; what is no more than punctuation is left out."""
        return [piece for piece in take_apart(text, self._read, self.longest) if self.alphabet.can_speak(piece.ids)]

    def speak(self, texts: Iterable[str], seed: int = 1234, tries: int = TRIES) -> Iterator[Spoken]:
        """Speak each text in one go; as ``speak_pieces``."""
        return self.speak_pieces((Piece(text, 0.0, self.symbols(text)) for text in texts), seed, tries)

    def speak_pieces(self, pieces: Iterable[Piece], seed: int = 1234, tries: int = TRIES) -> Iterator[Spoken]:
        """Speak pieces of text, in their order, some at a time: memory does not grow with their number.

        What fails is tried again with other random numbers. Those of a piece follow from ``seed``,
        its place among the pieces and the try. UserError for a spectrogram that is not finite.
        """
        numbered = ((piece, seed, place) for place, piece in enumerate(pieces))
        while window := list(islice(numbered, WINDOW)):
            yield from self.speak_together(window, tries)

    def speak_together(self, pieces: Sequence[tuple[Piece, int, int]], tries: int = TRIES) -> Iterator[Spoken]:
        """Speak pieces that may belong to several texts: each with the seed of its text and its place in it.

        A piece is spoken as ``speak_pieces`` would speak it. UserError as there.
        """
        symbols = [piece.ids for piece, _, _ in pieces]
        outcomes: list[list[Utterance]] = [[] for _ in pieces]
        for number in range(tries):
            waiting = [i for i, so_far in enumerate(outcomes) if not so_far or find_flaw(so_far[-1])]
            for batch in in_batches(waiting, lambda i: len(symbols[i])):
                seeds = [derive_seed(*pieces[i][1:], number) for i in batch]
                for i, utterance in zip(batch, self.infer([symbols[i] for i in batch], seeds)):
                    outcomes[i].append(utterance)
        for (piece, _, _), each in zip(pieces, outcomes):
            yield self._choose(piece.text, each)

    def _choose(self, text: str, outcomes: list[Utterance]) -> Spoken:
        """The best of the outcomes; what was wrong with the others is logged."""
        first, tries = find_flaw(outcomes[0]), len(outcomes)
        endless = not any(outcome.stopped for outcome in outcomes)
        if endless:
            outcomes = [cut_behind_the_text(outcome) for outcome in outcomes]
        best = max(outcomes, key=quality)
        flaw = find_flaw(best)
        if not torch.isfinite(best.mel).all():
            raise UserError(f"the mel spectrogram of {shorten(text)} is not finite: {self.path} is not usable here")
        if flaw:
            log.warning("%s %s%s", shorten(text), flaw, f", even in the best of {tries} tries" if tries > 1 else "")
        elif endless:
            log.info("%s %s, and is cut where the attention reaches the end of the text", shorten(text), first)
        elif tries > 1:
            log.info("%s %s at first; try %d is good", shorten(text), first, tries)
        return Spoken(text, best, flaw)


class Synthesizer(BaseSynthesizer):
    """A Tacotron2 ready to speak, by PyTorch.

    Attributes beside those of ``BaseSynthesizer``: ``model``, ``mel`` (the spectrogram that it predicts), ``training``
    (the checkpoint's progress), ``precision``, ``device``.
    """

    def __init__(
        self,
        path: str | Path,
        device: Device,
        amp: str = "",
        dictionary: str | None = None,
        hints: Hints | None = None,
        cleaners: Sequence[str] = (),
    ):
        """``path``: a checkpoint of any form; ``amp``: O0, TF32, O1 or O2, by default the device's;
        ``dictionary``: a file, by default that of the training; empty for none; ``hints``: what the file does not
        say; ``cleaners``: names, by default those of the training. UserError for unknown names, and if the symbols
        of the file are not known."""
        clean("", cleaners)
        loaded = inference.load(path, "tacotron2", Config, build_model, hints)
        super().__init__(path, loaded.config, dictionary, cleaners)
        self.device, self.model, self.training = device, loaded.model, loaded.training
        level = amp_level(amp, self.config.train_config.fp16_run, device)
        self.precision = inference.prepare(self.model, device, level, self.config.npu_config)
        self._make_steps = RecordedSteps(self.model.decoder)
        self.bytes = sum(weight.nbytes for weight in self.model.state_dict().values())
        log.info("Tacotron2 on device: %s (%s); precision: %s", device.torch_device, device.why, level)

    @cached_property
    def mel(self) -> MelSpectrogram:
        """Made when it is asked for: librosa's filters take seconds to import, and speech needs none."""
        return build_mel(self.config)

    def infer(self, texts: list[list[int]], seeds: list[int]) -> list[Utterance]:
        text = pad_sequence([torch.tensor(symbols) for symbols in texts], batch_first=True)
        if self.device.type == "cuda":
            text = F.pad(text, (0, -text.shape[1] % SYMBOLS))
        text = text.to(self.device.torch_device)
        lengths = torch.tensor([len(symbols) for symbols in texts], device=self.device.torch_device)
        with self.precision.autocast():
            return self.model.infer(text, lengths, seeds, self._make_steps)


def in_batches(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items sorted by length, in batches that are no larger than SYMBOLS_IN_BATCH with their padding."""
    batch: list[Item] = []
    for item in sorted(items, key=length):
        if batch and (len(batch) + 1) * length(item) > SYMBOLS_IN_BATCH:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def derive_seed(*numbers: int) -> int:
    """A seed that has nothing in common with those of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def find_flaw(utterance: Utterance) -> str:
    """A sign that the speech does not follow the text; empty if there is none."""
    if not utterance.stopped:
        return f"has no end after {utterance.length} frames"
    if not utterance.coverage >= LEAST_COVERAGE:
        return f"was not spoken in full (coverage {utterance.coverage:.2f})"
    if not utterance.diagonality >= LEAST_DIAGONALITY:
        return f"does not advance with the text (diagonality {utterance.diagonality:.2f})"
    return ""


def cut_behind_the_text(utterance: Utterance) -> Utterance:
    """Speech that no gate ended, up to where its attention reaches the end of the text; all of it if it never does."""
    steps = end_of_text(utterance.alignment)
    if steps is None:
        return utterance
    length = utterance.length // len(utterance.alignment) * steps
    alignment, gate = utterance.alignment[:steps], utterance.gate[:steps]
    return Utterance(utterance.mel[:, :length], length, True, alignment, gate, *alignment_quality(alignment))


def quality(utterance: Utterance) -> tuple[bool, float]:
    """To compare utterances of one text."""
    return utterance.stopped, utterance.diagonality + utterance.coverage


def shorten(text: str) -> str:
    """A text in quotes, its beginning if it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
