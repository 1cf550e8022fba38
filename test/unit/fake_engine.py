"""An engine for tools/make_corpus.py: tones, and what the text asks for. Apart, so that no process loads PyTorch."""

import os
import signal
import time

import numpy as np

from common.program import UserError
from tools.corpus.engines import Engine

RATE = 16000


def find(voice):
    return Engine("fake", "1.0", voice or "alto", "none", load)


def load(voice):
    return speak


def speak(text, seed):
    """0.1 s of a tone for each character, which the seed decides on, and as long a silence."""
    if "fatal" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hoarse" in text:
        raise UserError("the fake engine is hoarse")
    time.sleep(0.05 * text.count("slow"))
    time_axis = np.arange(int(0.1 * len(text) * RATE)) / RATE
    tone = 0.5 * np.sin(2 * np.pi * np.random.default_rng(seed).uniform(200, 400) * time_axis)
    audio = np.concatenate([tone, np.zeros(len(tone))]).astype(np.float32)
    if "nan" in text:
        audio[7] = np.nan
    scale = 3 if "loud" in text else 0 if "silent" in text else 1
    return audio * scale, RATE
