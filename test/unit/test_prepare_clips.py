"""tools/prepare_data.py: what a recording becomes, in whatever form it is, and what is measured of it then."""

import numpy as np
import pytest
import soundfile
import soxr
from speech_like import ROOM, silence, speech

from common.audio import ClipError
from conftest import RATE
from tools.prepare.convert import Recipe, convert
from tools.prepare.levels import Levels
from tools.prepare.suspicions import find_same_audio

KEEP = Recipe(level=None, margin=None)


@pytest.fixture
def made(tmp_path):
    """Writes a recording, and returns what it becomes: samples and clip."""

    def make(audio, recipe=KEEP, rate=RATE, form="WAV", subtype=None):
        soundfile.write(tmp_path / "a", audio, rate, format=form, subtype=subtype)
        return convert(tmp_path / "a", recipe)

    return make


def test_what_is_right_already_stays_to_the_sample(made):
    audio = np.round(speech() * 32768).astype(np.int16)
    for samples in (audio, np.round(audio * (32500 / np.abs(audio).max())).astype(np.int16)):  # or near full scale
        out, clip = made(samples)
        assert (np.round(out * 32768) == samples).all() and clip.steps == []


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64"])
@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_every_format_and_rate_becomes_the_same_sound(made, form, rate):
    audio = speech(seconds=3)
    out, clip = made(soxr.resample(audio, RATE, rate), rate=rate, form=form)
    assert abs(len(out) / RATE - 3) < 0.01 and clip.figures.rate == rate
    assert clip.steps == [f"resampled from {rate} Hz"]
    # What is below 3 kHz survives every one of them.
    low = [soxr.resample(samples, RATE, 6000)[500:-500] for samples in (audio, out[: len(audio)])]
    lag = max(range(-20, 20), key=lambda shift: np.dot(low[0][50:-50], np.roll(low[1], shift)[50:-50]))
    assert np.corrcoef(low[0][50:-50], np.roll(low[1], lag)[50:-50])[0, 1] > 0.98


def test_nothing_is_folded_down_by_resampling(made):
    """Of a sound at 15 kHz, which the new rate cannot have, nothing is left below."""
    low, time = soxr.resample(speech(3), RATE, 48000), np.arange(3 * 48000) / 48000
    clean, _ = made(low, rate=48000, subtype="FLOAT")
    out, _ = made(low + 0.3 * np.sin(2 * np.pi * 15000 * time), rate=48000, subtype="FLOAT")
    assert np.abs(out - clean)[2000:-2000].max() < 2e-6


@pytest.mark.parametrize("constant", [0.05, -0.05])
def test_a_constant_is_removed(made, constant):
    audio = speech()
    out, clip = made(audio + constant)
    assert abs(out.mean()) < 1e-6 and clip.steps == [f"DC {audio.mean() + constant:+.4f} removed"]


@pytest.mark.parametrize("room", [ROOM, 3e-3, 1e-2])
def test_silence_at_the_edges_goes_but_for_a_margin(made, room):
    spoken = speech(2.0, room=0)
    audio = np.concatenate([np.zeros(RATE), spoken, np.zeros(2 * RATE)])
    audio += room * np.random.default_rng(2).standard_normal(len(audio))
    out, clip = made(audio, Recipe(level=None, margin=0.1), subtype="FLOAT")
    assert clip.figures.seconds == pytest.approx(2.2, abs=0.08)
    begins = round(0.9 * RATE)
    start = min(range(begins - 1000, begins + 1000), key=lambda i: np.abs(audio[i : i + len(out)] - out).max())
    assert np.abs(audio[start : start + len(out)] - out).max() < 1e-6
    assert clip.steps == [
        f"{start / RATE:.2f} s trimmed before and {(len(audio) - start - len(out)) / RATE:.2f} s behind"
    ]
    assert made(audio)[1].figures.seconds == pytest.approx(5)
    for one_side in (audio[: 3 * RATE], audio[RATE:]):
        out, _ = made(one_side, Recipe(level=None, margin=0.1), subtype="FLOAT")
        assert len(out) / RATE == pytest.approx(2.1, abs=0.08)


def test_a_loud_click_limits_the_gain(made):
    audio = 0.1 * speech()
    audio[RATE] = 0.5
    out, clip = made(audio, Recipe(margin=None))
    assert np.abs(out).max() == pytest.approx(0.95, abs=1e-3) and clip.steps[-1].endswith("limited by its peak")


def test_floats_beyond_full_scale_become_quieter_rather_than_clipped(made):
    audio = speech(level=3.0)
    out, _ = made(audio, subtype="FLOAT")
    assert np.abs(out).max() <= 0.951 and np.corrcoef(out, audio)[0, 1] > 0.9999


def test_integers_in_a_float_file_become_samples(made):
    audio = speech()
    out, clip = made(audio * 32768, subtype="FLOAT")
    assert np.abs(out - audio).max() < 1e-6 and clip.figures.clipped == 0


@pytest.mark.parametrize("audio,message", {
    "short": (speech(0.3), "has 0.30 s of speech, shorter than 0.5 s"),
    "long": (speech(16), r"has 16\.\d\d s of speech, longer than 15 s"),
    "mostly silence": (np.concatenate([silence(9), speech(0.2), silence(9)]), "shorter than 0.5"),
    "silent": (np.zeros(RATE), "is silent"),
    "constant": (np.full(RATE, 0.3), "is silent"),
    "nan": (np.where(np.arange(RATE) == 9, np.nan, 0.1), "not finite"),
}.values(), ids=str)  # fmt: skip
def test_what_cannot_be_a_clip_is_refused(made, audio, message):
    with pytest.raises(ClipError, match=message):
        made(audio, Recipe(), subtype="FLOAT")


def test_a_chapter_is_not_read(made):
    with pytest.raises(ClipError, match="lasts 11 minutes: cut it into sentences"):
        made(np.zeros(660 * 1000), rate=1000)


def test_what_macos_puts_beside_it_is_no_part_of_it(tmp_path):
    soundfile.write(tmp_path / "a.mp3", speech(), RATE, format="MP3")
    (tmp_path / "._a.mp3").write_bytes(b"\0\5\x16\7 macOS")
    assert convert(tmp_path / "a.mp3", KEEP)[1].figures.seconds > 1.9


# ---- what is measured ----


def test_clipping_is_counted_at_whatever_level(made):
    audio = np.clip(speech(level=0.9), -0.6, 0.6)
    cut = int((np.abs(audio) == 0.6).sum())
    assert cut > 100
    for gain in (1 / 0.6, 1, 0.5):
        assert made(gain * audio)[1].figures.clipped == pytest.approx(cut, abs=0.05 * cut)
    assert made(speech(level=0.5))[1].figures.clipped == 0
    assert made(np.stack([speech(), np.zeros(2 * RATE)], 1))[1].figures.clipped == 0


def test_pauses_noise_and_digital_silence_are_measured(made):
    parts = [speech(1.5, seed=1), silence(1.2), speech(1.5, seed=2)]
    figures = made(np.concatenate(parts))[1].figures
    assert figures.longest_pause == pytest.approx(1.2, abs=0.15) and figures.digital_silence == 0
    assert figures.noise_floor == pytest.approx(20 * np.log10(ROOM), abs=1)
    parts[1] = np.zeros(RATE)
    figures = made(np.concatenate(parts))[1].figures
    assert figures.digital_silence == pytest.approx(1 / 4, abs=0.01)
    assert figures.noise_floor > -75  # of what was recorded


def test_a_pause_is_what_lies_between_frames_that_speak():
    for quiet in (0, 1, 3):
        frames = np.array([-90.0, 0, 0, *quiet * [-90], 0, -90, -90, -90, -90])
        assert Levels(frames, hop=256, speech=0.0, floor=-90.0).longest_pause(RATE) == quiet * 256 / RATE


# ---- the same audio ----


def test_the_same_audio_is_found_in_another_format_and_level(made):
    clips = {f"c{i}": made(speech(3, seed=i), Recipe())[1].figures for i in range(6)}
    assert find_same_audio(clips) == []
    padded = np.concatenate([silence(0.7), 0.3 * speech(3, seed=2), silence(0.4)])
    clips["other"] = made(soxr.resample(padded, RATE, 44100), Recipe(), 44100, "MP3")[1].figures
    clips["same"] = made(speech(3, seed=4), Recipe())[1].figures
    said = [problem.message for problem in find_same_audio(clips)]
    assert sorted(said) == ["other: sounds like the audio of c2", "same: is the audio of c4"]
