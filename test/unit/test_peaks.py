"""How loud audio is at most, whichever sign it has there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.audio import write_wav
from conftest import RATE
from tools import synthesize
from tools.corpus import clips
from tools.speech import figures


@pytest.mark.parametrize("sign", [1, -1])
def test_the_peak_is_that_of_all_pieces(tmp_path, sign):
    """Whichever of them it is in."""
    sounds = iter([[0.1, 0.3], [0.2, sign * 0.75], [-0.4, 0.4]])
    result = SimpleNamespace(utterance=SimpleNamespace(mel=None), flaw="")
    speaker = SimpleNamespace(
        config=SimpleNamespace(data_config=SimpleNamespace(sampling_rate=RATE)),
        speak_pieces=lambda pieces, seed: (result for _ in pieces),
    )
    pieces = [synthesize.Piece("Go.", 0.1, [1]) for _ in range(3)]
    wavs = [synthesize.Wav(tmp_path / "a.wav", pieces[:2]), synthesize.Wav(tmp_path / "b.wav", pieces[2:])]
    total = synthesize.speak(wavs, speaker, lambda mel: torch.tensor(next(sounds)), seed=1)
    assert total.peak == 0.75
    assert total.seconds == pytest.approx((6 + round(0.1 * RATE)) / RATE)


@pytest.mark.parametrize("sign", [1, -1])
def test_loudness_has_no_sign(sign):
    """A clip all to one side is neither silent nor left beyond full scale."""
    spoken = lambda loudness: clips.make_clip(  # noqa: E731
        lambda text, seed: (np.full(clips.RATE, sign * loudness), clips.RATE), "Line.", 1, 0, -120
    )
    assert np.abs(spoken(0.5)).max() == pytest.approx(0.5, rel=5e-5)
    assert np.abs(spoken(3.0)).max() == 1
    assert spoken(0.001) == "silent"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_peak_of_a_measured_clip(tmp_path, sign):
    audio = 0.1 * np.random.default_rng(0).uniform(-1, 1, 5000)
    audio[100] = sign * 0.5
    write_wav(tmp_path / "a.wav", audio, RATE)
    assert figures.measure(figures.Pair("a", tmp_path / "a.wav", None, "")).peak == 0.5
