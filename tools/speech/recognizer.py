"""Word errors by a speech recognizer, whose packages are optional."""

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from common.program import UserError

SAMPLING_RATE = 16000
"Whisper's."
PACKAGES = ("faster_whisper", "jiwer", "whisper_normalizer")
FILES = ("model.bin", "config.json", "tokenizer.json")
"Without the last one faster-whisper would look for it on the network."

Words = list[tuple[str, bool]]
"Words, and whether each is wrong."


def load_recognizer(folder: str) -> Callable[[np.ndarray, int], str]:
    """A function that transcribes the English speech in samples [N] in -1..1 of a rate: Whisper, in 8-bit integers.

    ``folder`` holds a model of faster-whisper. UserError if a package or a file is missing.
    """
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        names = ", ".join(missing).replace("_", "-")
        raise UserError(
            f"--recognizer needs packages that are not here ({names}): pip install -r requirement-measure.txt"
        )
    if missing := [name for name in FILES if not Path(folder, name).is_file()]:
        raise UserError(
            f"--recognizer={folder} holds no {', '.join(missing)}: name the folder of a faster-whisper model,"
            " such as the files of Systran/faster-whisper-base"
        )
    from faster_whisper import WhisperModel

    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    try:
        model = WhisperModel(folder, "cpu", compute_type="int8", cpu_threads=len(os.sched_getaffinity(0)))
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"--recognizer={folder} cannot be loaded as a faster-whisper model: {error}") from error

    def hear(audio: np.ndarray, sampling_rate: int) -> str:
        audio = resample_poly(audio, SAMPLING_RATE, sampling_rate)
        segments, _ = model.transcribe(audio, language="en", beam_size=5, condition_on_previous_text=False)
        return " ".join(segment.text for segment in segments)

    return hear


def make_normalizer() -> Callable[[str], str]:
    """A function that evens out how English text is written: case, punctuation, numbers, contractions, spelling.

    By Whisper's authors (Radford et al. 2022, arXiv:2212.04356, appendix C).
    """
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def error_rates(said: list[str], heard: list[str]) -> tuple[float, float]:
    """Word and character error rate of normalized texts: all errors over all words, or characters, that were said."""
    import jiwer

    return jiwer.wer(said, heard), jiwer.cer(said, heard)


def mark_errors(said: str, heard: str) -> tuple[Words, Words]:
    """The words of two normalized texts; those without an equal in the other text are wrong."""
    import jiwer

    outcome = jiwer.process_words(said, heard)
    equal = [chunk for chunk in outcome.alignments[0] if chunk.type == "equal"]
    right_said = {i for chunk in equal for i in range(chunk.ref_start_idx, chunk.ref_end_idx)}
    right_heard = {i for chunk in equal for i in range(chunk.hyp_start_idx, chunk.hyp_end_idx)}
    return (
        [(word, i not in right_said) for i, word in enumerate(outcome.references[0])],
        [(word, i not in right_heard) for i, word in enumerate(outcome.hypotheses[0])],
    )
