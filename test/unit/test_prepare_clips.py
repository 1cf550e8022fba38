"""tools/prepare_data.py: what a recording becomes, and what is measured and suspected of it."""

import numpy as np
import pytest
import soundfile
import soxr
from speech_like import ROOM, silence, speech

from common.audio import ClipError
from conftest import RATE
from tools.prepare.convert import Recipe, convert
from tools.prepare.figures import Figures
from tools.prepare.levels import Levels, find_levels
from tools.prepare.problems import Kind, worst_first
from tools.prepare.sources import Item
from tools.prepare.suspicions import find_same_audio, judge_clips, judge_pace
from tools.prepare.texts import DataConfig, count_symbols, find_signs, judge_texts

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
def test_formats_and_rates(made, form, rate):
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


@pytest.mark.parametrize("channels,step", {
    (1, 0): "channel 1 of 2, the others are quiet",
    (0.01, 1): "channel 2 of 2, the others are quiet",
    (1, -0.9): "channel 1 of 2, which another one cancels",
    (1, 0.8): "2 channels mixed",
    (1, 0.8, 0): "2 of 3 channels mixed",
}.items())  # fmt: skip
def test_channels(made, channels, step):
    audio = speech(room=0)
    out, clip = made(np.stack([gain * audio for gain in channels], axis=1))
    assert clip.steps == [step]
    assert (clip.figures.channels, clip.figures.recorded_seconds) == (len(channels), 2.0)
    expected = 0.9 if "mixed" in step else 1.0
    assert np.abs(out - expected * audio).max() < 1e-3


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


@pytest.mark.parametrize("gain", [0.02, 1, 4])
def test_level(made, gain):
    out, clip = made(gain * speech(level=0.2), Recipe(margin=None))
    levels = find_levels(out, RATE)
    assert levels.speech == pytest.approx(-20, abs=1e-4)
    assert np.abs(out).max() < 0.95
    assert clip.figures.level == pytest.approx(levels.speech, abs=1e-4)


def test_a_loud_click_limits_the_gain(made):
    audio = 0.1 * speech()
    audio[RATE] = 0.5
    out, clip = made(audio, Recipe(margin=None))
    assert np.abs(out).max() == pytest.approx(0.95, abs=1e-3) and clip.steps[-1].endswith("limited by its peak")


def test_floats_beyond_full_scale_become_quieter_rather_than_clipped(made):
    audio = speech(level=3.0)
    out, _ = made(audio, subtype="FLOAT")
    assert np.abs(out).max() <= 0.951 and np.corrcoef(out, audio)[0, 1] > 0.9999


def test_integers_in_a_float_file(made):
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
def test_what_cannot_be_a_clip(made, audio, message):
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


def test_pauses_noise_and_digital_silence(made):
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


# ---- what is suspected ----


def good(seconds=3.0, **others):
    values = {"rate": RATE, "level": -20.0, "noise_floor": -60.0, "silence": 0.1, "fingerprint": "80" * 256}
    return Figures(seconds=seconds, **(values | others))


@pytest.mark.parametrize("kind,values", {
    Kind.CLIPPED: {"clipped": 50}, Kind.NOISE: {"noise_floor": -40.0}, Kind.PAUSE: {"longest_pause": 2.0},
    Kind.QUIET: {"gain": 30.0}, Kind.DIGITAL_SILENCE: {"digital_silence": 0.3}, Kind.BAND: {"rate": 8000},
}.items())  # fmt: skip
def test_each_suspicion(kind, values):
    assert judge_clips({"a": good()}, {}, RATE) == []
    (problem,) = judge_clips({"a": good(), "b": good(**values)}, {}, RATE)
    assert (problem.kind, problem.name, problem.left_out) == (kind, "b", False)


def test_texts_that_cannot_belong_to_their_audio():
    rng = np.random.default_rng(0)
    symbols = {f"c{i}": int(n) for i, n in enumerate(rng.integers(10, 160, 200))}
    seconds = {name: (0.4 + count / 15) * float(np.exp(0.1 * rng.standard_normal())) for name, count in symbols.items()}
    assert judge_pace(seconds, symbols) == []
    seconds["c3"] *= 2
    seconds["c5"] /= 3
    assert [problem.name for problem in worst_first(judge_pace(seconds, symbols))] == ["c5", "c3"]
    # Also where a tenth of all is wrong.
    for i in range(20, 40):
        seconds[f"c{i}"] *= 3
    assert {problem.name for problem in judge_pace(seconds, symbols)} == {"c3", "c5", *(f"c{i}" for i in range(20, 40))}


def test_short_clips_are_judged_rightly_among_few():
    # Of 22 clips of LJ Speech; the wrong texts of two let the line begin at 5.7 s.
    symbols = [4, 25, 25, 30, 65, 69, 69, 75, 86, 89, 95, 99, 105, 110, 110, 119, 124, 132, 139, 143, 151, 155]
    tenths = [57, 84, 18, 19, 88, 59, 76, 53, 61, 50, 69, 79, 71, 64, 89, 79, 64, 84, 96, 81, 97, 97]
    names = [f"c{i}" for i in range(len(symbols))]
    found = judge_pace({name: n / 10 for name, n in zip(names, tenths)}, dict(zip(names, symbols)))
    assert {problem.name for problem in found} == {"c0", "c1"}


def test_few_clips_are_judged_by_what_nobody_can_speak():
    assert judge_pace({"a": 3.0, "b": 4.0, "c": 0.8}, {"a": 40, "b": 60, "c": 1}) == []
    assert {p.name for p in judge_pace({"a": 3.0, "b": 1.0, "c": 9.0}, {"a": 40, "b": 60, "c": 9})} == {"b", "c"}


def test_the_same_audio_in_another_format_and_level(made):
    clips = {f"c{i}": made(speech(3, seed=i), Recipe())[1].figures for i in range(6)}
    assert find_same_audio(clips) == []
    padded = np.concatenate([silence(0.7), 0.3 * speech(3, seed=2), silence(0.4)])
    clips["other"] = made(soxr.resample(padded, RATE, 44100), Recipe(), 44100, "MP3")[1].figures
    clips["same"] = made(speech(3, seed=4), Recipe())[1].figures
    said = [problem.message for problem in find_same_audio(clips)]
    assert sorted(said) == ["other: sounds like the audio of c2", "same: is the audio of c4"]


def items(*texts):
    return [Item(None, text, f"line {i}", name=str(i)) for i, text in enumerate(texts)]


def test_texts_without_anything_to_speak():
    counts, problems = count_symbols(items("Yes.", "", "?!", None), DataConfig())
    assert counts == {"0": 4} and [problem.name for problem in problems] == ["1", "2"]


def test_signs_that_are_lost():
    texts = ["It costs $5.", "50% off #1", 'He said "no" to 日本', "A ☃ melts"]
    signs = find_signs(texts, DataConfig())
    assert {character for character, sign in signs.items() if sign.lost} == {"%", "#", '"', "☃"}
    assert signs["日"].read_as.strip() == "ri" and signs["s"].count == 4 and not signs["$"].lost
    problems = judge_texts(items(*texts), signs, DataConfig())
    assert [p.name for p in problems if p.kind is Kind.LOST] == ["1", "3"]
    assert next(p.message for p in problems if p.kind is Kind.NUMBERS) == "line 0: '$5.' is read 'five dollars.'"
    assert find_signs(["It costs $5.", "US$ alone"], DataConfig())["$"].lost  # of the second one
    lost = {
        c for c, sign in find_signs(["Grüße an 5"], DataConfig(text_cleaners=["basic_cleaners"])).items() if sign.lost
    }
    assert lost == {"ü", "ß", "5"}


def test_texts_are_read_with_the_symbols_of_the_configuration():
    config = DataConfig(symbols=["_", *"абвгд5 ."], text_cleaners=["basic_cleaners"])
    counts, problems = count_symbols(items("Баг 5.", "abc 5."), config)
    assert list(counts.values()) == [len("баг 5.")]
    assert len(problems) == 1
    lost = {sign for sign, found in find_signs(["Баг 5.", "abc"], config).items() if found.lost}
    assert lost == set("abc")


def test_the_same_text_twice():
    texts = items("Yes, it is.", "No.", "yes, it is.")
    problems = judge_texts(texts, find_signs([item.text for item in texts], DataConfig()), DataConfig())
    assert [(problem.kind, problem.name) for problem in problems] == [(Kind.SAME_TEXT, "2")]
