"""Clips, from text to samples, by several processes.

Nothing here loads PyTorch, which takes seconds and hundreds of megabytes in each process.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np
from scipy.signal import resample_poly

from common.program import StopSignal, UserError
from tools.corpus.engines import Engine, Speak

RATE = 22050
SHORTEST, LONGEST = 0.3, 15.0
"Seconds of a clip."
FASTEST = 40
"Characters a second, more than anyone speaks: a text beyond that is known to be too long without speaking it."
SILENT = 0.01
"A clip whose peak is below is silent."
AHEAD = 4
"How many clips each process is given ahead of the one that is waited for."

ClipOrReason: TypeAlias = np.ndarray | str
"Samples [N] as float32 in -1..1 at ``RATE``, or why there are none."


def make_clip(speak: Speak, text: str, number: int, seed: int, noise_floor: float) -> ClipOrReason:
    """Speak a text. Number and seed decide over everything random; the noise floor is an RMS in dB of full scale."""
    if not any(character.isalpha() for character in text):
        return "without anything to speak"
    too_long = f"longer than {LONGEST:g} s"
    if len(text) > FASTEST * LONGEST:
        return too_long
    audio, rate = speak(text, seed + number - 1)
    divisor = math.gcd(RATE, rate)
    audio = resample_poly(audio, RATE // divisor, rate // divisor)
    if len(audio) < SHORTEST * RATE:
        return f"shorter than {SHORTEST:g} s"
    if len(audio) > LONGEST * RATE:
        return too_long
    if not np.isfinite(audio).all():
        return "not finite"
    if np.abs(audio).max() < SILENT:
        return "silent"
    noise = np.random.default_rng([seed, number]).standard_normal(len(audio))
    audio = audio + 10 ** (noise_floor / 20) * noise
    return (audio / max(1.0, np.abs(audio).max())).astype(np.float32)


def make_clips(
    engine: Engine, lines: list[tuple[int, str]], seed: int, noise_floor: float, jobs: int, stop: StopSignal
) -> Generator[ClipOrReason, None, None]:
    """The clips of numbered lines in their order, by ``jobs`` processes; ends early when ``stop`` is requested.

    UserError if the engine fails, or a process is killed.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # in the processes, which inherit it
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    pool = ProcessPoolExecutor(jobs, context, _start, (engine, seed, noise_floor))
    to_submit = iter(lines)
    try:
        waiting = deque(_submit(pool, line) for line in islice(to_submit, AHEAD * jobs))
        while waiting and _is_done(waiting[0], stop):
            yield waiting.popleft().result()
            waiting.extend(_submit(pool, line) for line in islice(to_submit, 1))
    except BrokenProcessPool as error:
        if not stop.requested:  # else the signal was sent to all processes
            raise UserError(
                "a process that speaks was killed, perhaps for lack of memory: fewer --jobs need less;"
                " the same command goes on where it was"
            ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _is_done(clip: Future[ClipOrReason], stop: StopSignal) -> bool:
    """Wait for a clip; False if a stop is requested meanwhile."""
    while not stop.requested:
        if wait([clip], timeout=0.2).done:
            return True
    return False


def _submit(pool: ProcessPoolExecutor, line: tuple[int, str]) -> Future[ClipOrReason]:
    """Submitting starts the processes; Ctrl-C is for the program, and they inherit that it does not reach them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_make, *line)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_clip_of: Callable[..., ClipOrReason]


def _start(engine: Engine, seed: int, noise_floor: float) -> None:
    """Begin a process: load the engine, and end when the program has ended in whatever way."""
    global _clip_of
    threading.Thread(target=_end_with_program, daemon=True).start()
    _clip_of = partial(make_clip, engine.load(), seed=seed, noise_floor=noise_floor)


def _end_with_program() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(number: int, text: str) -> ClipOrReason:
    try:
        return _clip_of(text, number)
    except UserError as error:
        raise UserError(f"line {number}: {error}") from error
