"""Requests of many clients on one device: who waits longest is next, and sentences are decoded together.

One thread decodes, which keeps one core busy, and one makes audio meanwhile. Each works for the listener who runs out
of sound first: one who has heard nothing runs out at the time of the request, the others when what was made for them
has been played.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from common.audio import to_16_bit
from common.program import UserError
from tacotron2.sentences import Piece
from tacotron2.synthesizer import BaseSynthesizer, Spoken
from waveglow.vocoder import BaseVocoder

log = logging.getLogger(__name__)

CHUNK_FRAMES = (32, 128, 512)
"Frames of a text's first chunks: short ones are heard sooner. Later ones have the last size, the fastest in all."
LARGEST_BATCH = 8
COMPANION = 1.2
"A sentence is decoded beside one that waits if at most this many times as long: a longer one would hold it up."
DECODED_AHEAD = 2
"Sentences of a text that may wait for WaveGlow."
SECONDS_AHEAD = 30.0
"Sound that is made for a reader who does not take it yet."
LONGEST_WAIT = 60.0
"Seconds after which a reader who takes nothing is given up."


Item: TypeAlias = np.ndarray | Spoken | Exception | None
"""What a speech gives: a piece as it was decoded, in front of its audio; 16-bit samples [N], chunk after chunk; at last
None, or the error that ended it."""


@dataclass(eq=False)
class Speech:
    """A text that is being spoken. The speaker's threads write all fields but ``taken`` and ``cancelled``."""

    pieces: list[Piece]
    seed: int
    sigma: float
    denoiser_strength: float
    deliver: Callable[[Item], None]
    "Called in a thread."
    began: float = field(default_factory=time.monotonic)
    spoken: list[Spoken] = field(default_factory=list)
    "Pieces whose spectrograms are there and whose audio is not; the first of them is being made."
    decoded: int = 0
    "Pieces whose spectrograms have been made."
    chunks: Iterator[Tensor] | None = None
    "The audio of the piece that is being made."
    heard_from: float = 0.0
    "When the first audio was there."
    made: int = 0
    "Samples."
    taken: int = 0
    "Samples that the reader has."
    touched: float = field(default_factory=time.monotonic)
    "When the reader last took some."
    cancelled: bool = False

    def take(self, samples: int) -> None:
        """The reader has so many more."""
        self.taken += samples
        self.touched = time.monotonic()

    def deadline(self, rate: int) -> float:
        """When the listener runs out of sound."""
        return self.heard_from + self.made / rate if self.made else self.began


class Speaker:
    """A voice that speaks to many at once. ``close`` ends its threads.

    Attributes: ``rate`` in samples a second; ``active``, the speeches that are not over; ``bytes`` of the weights.
    """

    def __init__(self, synthesizer: BaseSynthesizer, vocoder: BaseVocoder):
        self.synthesizer, self.vocoder = synthesizer, vocoder
        self.rate = synthesizer.config.data_config.sampling_rate
        self.bytes = synthesizer.bytes + vocoder.bytes
        self.active: list[Speech] = []
        self.changed = threading.Condition()
        self._closed = False
        works = ((self._to_decode, self._decode), (self._to_vocode, self._vocode))
        self._threads = [threading.Thread(target=self._work, args=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def add(self, speech: Speech) -> None:
        with self.changed:
            self.active.append(speech)
            self.changed.notify_all()

    def cancel(self, speech: Speech) -> None:
        """Nobody listens any more: no further work is done for it."""
        with self.changed:
            speech.cancelled = True
            self.changed.notify_all()

    def take(self, speech: Speech, samples: int) -> None:
        """The reader of a speech has so many more samples."""
        with self.changed:
            speech.take(samples)
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        for thread in self._threads:
            thread.join(LONGEST_WAIT)

    def _work(self, find: Callable[[], list[Speech]], do: Callable[[list[Speech]], None]) -> None:
        """A thread's work: find the speeches to work for and do that, until ``close``."""
        while True:
            with self.changed:
                if self._closed:
                    return
                self._forget()
                if not (speeches := find()):
                    self.changed.wait(1.0)
                    continue
            try:
                do(speeches)
            except Exception as error:  # the next request may go well
                # A UserError quotes the text, which does not belong in the log.
                log.error("speaking failed", exc_info=None if isinstance(error, UserError) else error)
                for speech in speeches:
                    self._end(speech, error)

    def _forget(self) -> None:
        """End the speeches that nobody listens to."""
        late = time.monotonic() - LONGEST_WAIT
        for speech in list(self.active):
            stuck = speech.taken < speech.made and speech.touched < late and speech.heard_from < late
            if speech.cancelled or stuck:
                self._end(speech, TimeoutError(f"nothing was taken for {LONGEST_WAIT:g} s") if stuck else None)

    def _in_turn(self, speeches: Iterable[Speech]) -> list[Speech]:
        """The most urgent first; without those that are far ahead of their readers."""
        ahead = SECONDS_AHEAD * self.rate
        hungry = [speech for speech in speeches if speech.made - speech.taken < ahead]
        return sorted(hungry, key=lambda speech: speech.deadline(self.rate))

    def _to_decode(self) -> list[Speech]:
        """The speeches whose next pieces are decoded together: the most urgent, and those that do not hold it up."""

        def length(speech: Speech) -> int:
            return len(speech.pieces[speech.decoded].text)

        waiting = self._in_turn(
            speech
            for speech in self.active
            if speech.decoded < len(speech.pieces) and len(speech.spoken) < DECODED_AHEAD
        )
        return [speech for speech in waiting if length(speech) <= COMPANION * length(waiting[0])][:LARGEST_BATCH]

    def _to_vocode(self) -> list[Speech]:
        """The most urgent speech whose next piece is decoded, if there is one."""
        return self._in_turn(speech for speech in self.active if speech.spoken)[:1]

    def _decode(self, speeches: list[Speech]) -> None:
        """Make the spectrogram of the next piece of each."""
        pieces = [(speech.pieces[speech.decoded], speech.seed, speech.decoded) for speech in speeches]
        for speech, spoken in zip(speeches, self.synthesizer.speak_together(pieces)):
            with self.changed:
                speech.spoken.append(spoken)
                speech.decoded += 1
                self.changed.notify_all()

    def _vocode(self, speeches: list[Speech]) -> None:
        """Make the next chunk of audio, and the silence behind a piece."""
        (speech,) = speeches
        if speech.chunks is None:
            mel = speech.spoken[0].utterance.mel
            sizes = itertools.chain(CHUNK_FRAMES if not speech.made else (), itertools.repeat(CHUNK_FRAMES[-1]))
            speech.deliver(speech.spoken[0])
            speech.chunks = self.vocoder.stream(mel, speech.sigma, speech.denoiser_strength, speech.seed, sizes)
        audio = next(speech.chunks, None)
        if audio is not None:
            if not torch.isfinite(audio).all():
                raise FloatingPointError("the audio is not finite: the models are not usable at this precision")
            self._deliver(speech, to_16_bit(audio))
            return
        with self.changed:
            number = speech.decoded - len(speech.spoken)
            speech.chunks = None
            del speech.spoken[0]
            self.changed.notify_all()
        if number == len(speech.pieces) - 1:
            self._end(speech, None)
        else:
            self._deliver(speech, np.zeros(round(speech.pieces[number].pause * self.rate), np.int16))

    def _deliver(self, speech: Speech, samples: np.ndarray) -> None:
        speech.heard_from = speech.heard_from or time.monotonic()
        speech.made += len(samples)
        speech.deliver(samples)

    def _end(self, speech: Speech, outcome: Exception | None) -> None:
        with self.changed:
            if speech not in self.active:
                return
            self.active.remove(speech)
        speech.deliver(outcome)
