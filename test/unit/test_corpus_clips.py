"""Clips of a corpus, from what an engine says to samples, on both sides of every limit."""

import re

import numpy as np
import pytest

from common.program import UserError
from conftest import RATE
from tools.corpus import clips
from tools.corpus.clips import make_clip
from tools.corpus.engines import Engine

NO_NOISE = -120.0


def tone(seconds, rate=RATE, level=0.5, hertz=441.0):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def clip_of(audio, rate=RATE, text="Words.", number=1, seed=0, noise_floor=NO_NOISE):
    return make_clip(lambda text, seed: (audio, rate), text, number, seed, noise_floor)


@pytest.mark.parametrize(("text", "spoken"), [("a", True), ("1 б", True), ("", False), ("12 ?!", False)])
def test_a_text_without_letters_is_not_spoken(text, spoken):
    assert isinstance(clip_of(tone(1), text=text), np.ndarray) == spoken
    if not spoken:
        assert clip_of(tone(1), text=text) == "without anything to speak"


@pytest.mark.parametrize(("characters", "spoken"), [(600, True), (601, False)])
def test_what_nobody_says_in_15_seconds_is_not_spoken(characters, spoken):
    asked = []
    found = make_clip(lambda *given: asked.append(given) or (tone(1), RATE), "a" * characters, 1, 0, -60)
    assert len(asked) == spoken
    assert isinstance(found, np.ndarray) if spoken else found == "longer than 15 s"


@pytest.mark.parametrize(
    ("samples", "reason"),
    [(6614, "shorter than 0.3 s"), (6615, None), (15 * RATE, None), (15 * RATE + 1, "longer than 15 s")],
)
def test_clips_are_as_long_as_the_limits_allow(samples, reason):
    found = clip_of(tone(16)[:samples])
    assert found == reason if reason else len(found) == samples


@pytest.mark.parametrize("level", [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_not_finite_is_enough(level):
    audio = tone(1)
    audio[5000] = level
    assert clip_of(audio) == "not finite"


@pytest.mark.parametrize(("level", "is_silent"), [(0.0099, True), (-0.0101, False)])
def test_a_peak_below_a_hundredth_is_silence(level, is_silent):
    """Before the noise, and of either sign."""
    audio = np.zeros(RATE, np.float32)
    audio[100] = level
    found = clip_of(audio, noise_floor=-20.0)
    assert found == "silent" if is_silent else len(found) == RATE


@pytest.mark.parametrize("rate", [16000, 44100, 48000, RATE])
def test_the_rate_is_that_of_the_corpus(rate):
    found = clip_of(tone(1, rate), rate)
    assert (found.dtype, len(found)) == (np.float32, RATE)
    np.testing.assert_allclose(found[2000:-2000], tone(1)[2000:-2000], atol=2e-3)


@pytest.mark.parametrize("level", [0.02, 0.5, 1.0])
def test_what_fits_keeps_its_level(level):
    np.testing.assert_allclose(clip_of(tone(1, level=level)), tone(1, level=level), atol=1e-5)


def test_what_does_not_fit_becomes_quieter_as_a_whole():
    np.testing.assert_allclose(clip_of(tone(1, level=4.0)), tone(1) / tone(1).max(), atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_loudness_has_no_sign(sign):
    """A clip all to one side is neither silent nor left beyond full scale."""
    spoken = lambda loudness: clip_of(np.full(RATE, sign * loudness))  # noqa: E731
    assert np.abs(spoken(0.5)).max() == pytest.approx(0.5, rel=5e-5)
    assert np.abs(spoken(3.0)).max() == 1
    assert spoken(0.001) == "silent"


@pytest.mark.parametrize("floor", [-60.0, -30.0])
def test_noise_is_added_of_the_level_that_is_asked_for(floor):
    noise = clip_of(tone(5), noise_floor=floor) - tone(5)
    assert 20 * np.log10(noise.std()) == pytest.approx(floor, abs=0.1)
    assert abs(noise.mean()) < noise.std() / 50


def test_seed_and_number_decide_on_speech_and_noise():
    given = []
    for seed, number in ((7, 1), (7, 3)):
        make_clip(lambda *both: given.append(both) or (tone(1), RATE), "Words.", number, seed, -60)
    assert given == [("Words.", 7), ("Words.", 9)]
    found = [
        clip_of(tone(1), seed=seed, number=number, noise_floor=-20) for seed, number in ((7, 3), (7, 3), (3, 7), (8, 2))
    ]
    assert np.array_equal(found[0], found[1])
    for other in found[2:]:  # nor does another line under another seed have this noise
        assert np.abs(other - found[0]).max() > 0.01


def test_lines_go_to_the_processes_as_they_are_and_an_error_names_its_line(monkeypatch):
    given = {}

    def in_processes(begin, lines, jobs, stop):
        given.update(jobs=jobs, stop=stop)
        yield from map(begin(), lines)

    def load(voice):
        given.setdefault("voices", []).append(voice)
        return speak

    def speak(text, seed):
        if text == "hoarse":
            raise UserError("the engine is hoarse")
        return tone(0.5 + 0.1 * seed), RATE

    monkeypatch.setattr(clips, "in_processes", in_processes)
    engine = Engine("fake", "1", "alto", "none", load)
    made = clips.make_clips(engine, [(1, "one"), (4, "four"), (5, "hoarse")], 2, -60, 3, "stop")
    assert [len(next(made)) for _ in range(2)] == [round((0.5 + 0.1 * seed) * RATE) for seed in (2, 5)]
    assert given == {"jobs": 3, "stop": "stop", "voices": ["alto"]}
    with pytest.raises(UserError, match=f"^{re.escape('line 5: the engine is hoarse')}$"):
        next(made)
