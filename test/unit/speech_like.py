"""Sounds that have what is measured of speech: syllables, pauses, and a room's noise."""

import numpy as np

from conftest import RATE

ROOM = 3e-4


def speech(seconds=2.0, seed=0, rate=RATE, level=0.2, room=ROOM):
    """Samples [N]: syllables of a tone with overtones, each of another pitch and strength."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    syllables = rng.uniform(0.3, 1, int(seconds * 5) + 2)
    pitch = 120 * 2 ** np.repeat(rng.uniform(0, 1, len(syllables)), rate // 5)[: len(time)]
    envelope = np.repeat(syllables, rate // 5)[: len(time)] * np.sin(np.pi * 5 * time) ** 2
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    weights = rng.uniform(0.2, 1, 8)
    tone = sum(weight * np.sin((number + 1) * phase) / (number + 1) for number, weight in enumerate(weights))
    return level * envelope * tone + room * rng.standard_normal(len(time))


def silence(seconds, rate=RATE, room=ROOM):
    return room * np.random.default_rng(1).standard_normal(int(seconds * rate))


def voice(seconds=1.0, cents=0.0, loudness=0.3, seed=0):
    """Samples [N]: a changing vowel whose pitch moves around 150 Hz, in a little noise; at any speed the same."""
    samples = int(seconds * RATE)
    place = np.linspace(0, 1, samples)
    frequency = 150 * 2 ** (cents / 1200) * (1 + 0.1 * np.sin(2 * np.pi * place))
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    formant = 600 + 900 * np.sin(3 * np.pi * place) ** 2
    tones = [np.exp(-(((n * 150 - formant) / 500) ** 2)) * np.sin(n * phase) for n in range(1, 15)]
    audio = sum(tones) + 0.02 * np.random.default_rng(seed).standard_normal(samples)
    return (loudness * audio / np.abs(audio).max()).astype(np.float32)
