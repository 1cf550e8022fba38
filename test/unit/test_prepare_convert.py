"""tools/prepare_data.py: each step from a recording to a clip, on both sides of every limit."""

import numpy as np
import pytest
import soundfile
from speech_like import speech

from common.audio import ClipError, Fault
from conftest import RATE
from tools.prepare import convert as module
from tools.prepare.convert import ConvertedClip, Recipe, convert, read_recording, to_level, to_one_channel, trim
from tools.prepare.figures import Figures
from tools.prepare.levels import Levels, find_levels

TIME = np.arange(4410) / 44.1  # whole periods
A, B = np.sin(2 * np.pi * TIME), np.cos(2 * np.pi * TIME)  # which have nothing in common


def like(share):
    """A channel whose correlation with ``A`` this is, a little quieter."""
    return 0.99 * (share * A + np.sqrt(1 - share**2) * B)


@pytest.mark.parametrize(
    ("channels", "step", "expected"),
    [
        ([A], None, A),
        ([0.09 * B, A], "channel 2 of 2, the others are quiet", A),
        ([0.11 * B, A], "2 channels mixed", (0.11 * B + A) / 2),
        ([like(-0.55), A], "channel 2 of 2, which another one cancels", A),
        ([like(-0.45), A], "2 channels mixed", (like(-0.45) + A) / 2),
        ([A, like(0.5), 0.05 * B], "2 of 3 channels mixed", (A + like(0.5)) / 2),
        ([A, like(0.5), like(-0.6)], "channel 1 of 3, which another one cancels", A),
        ([A, 0.5 * like(-0.55)], "channel 1 of 2, which another one cancels", A),  # however quiet that one is
        ([0 * A, 0 * A], "2 channels mixed", 0 * A),
        ([A, 0 * A], "channel 1 of 2, the others are quiet", A),
        ([0.01 * A, A], "channel 2 of 2, the others are quiet", A),
        ([A, -0.9 * A], "channel 1 of 2, which another one cancels", A),
        ([A, 0.8 * A], "2 channels mixed", 0.9 * A),
        ([A, 0.8 * A, 0 * A], "2 of 3 channels mixed", 0.9 * A),
    ],
)
def test_which_channels_are_taken(channels, step, expected):
    steps = []
    np.testing.assert_allclose(to_one_channel(np.stack(channels, axis=1), steps), expected, atol=1e-12)
    assert steps == ([step] if step else [])


@pytest.fixture
def write(tmp_path):
    def write(audio, rate=RATE):
        soundfile.write(tmp_path / "a.wav", audio, rate, subtype="FLOAT")
        return tmp_path / "a.wav"

    return write


KEEP = Recipe(level=None, margin=None)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_from_three_steps_of_16_bit_on_is_removed(write, sign):
    audio = speech(1.0)
    audio -= audio.mean()
    out, clip = convert(write(audio + sign * 0.9e-4), KEEP)
    assert clip.steps == []
    assert out.mean() == pytest.approx(sign * 0.9e-4, rel=0.01)
    out, clip = convert(write(audio + sign * 1.1e-4), KEEP)
    assert clip.steps == [f"DC {sign * 1.1e-4:+.4f} removed"]
    assert abs(out.mean()) < 1e-7


def test_lengths_are_allowed_up_to_the_limits_themselves(write):
    path = write(speech(2.0))
    assert convert(path, Recipe(level=None, margin=None, shortest=2.0, longest=2.0))[1].figures.seconds == 2.0
    for limits, beyond in (({"shortest": 2.01}, "shorter than 2.01"), ({"longest": 1.99}, "longer than 1.99")):
        with pytest.raises(ClipError, match=rf"a\.wav has 2\.00 s of speech, {beyond} s") as error:
            convert(path, Recipe(level=None, margin=None, **limits))
        assert error.value.fault is Fault.SHORT


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_is_a_fault_of_its_own(write, channels):
    with pytest.raises(ClipError, match=r"a\.wav is silent") as error:
        convert(write(np.zeros((RATE, channels))), Recipe())
    assert error.value.fault is Fault.SILENT


@pytest.mark.parametrize(("seconds", "read"), [(600, True), (600.5, False)])
def test_up_to_ten_minutes_are_read(write, seconds, read):
    path = write(np.zeros(round(seconds * 100)), rate=100)
    if read:
        assert len(read_recording(path)[0]) == 60000
    else:
        with pytest.raises(ClipError, match=r"lasts 10 minutes: cut it into sentences") as error:
            read_recording(path)
        assert error.value.fault is Fault.SHORT


def test_what_is_read_of_a_file(tmp_path, write):
    audio = speech(0.1).astype(np.float32)
    channels, rate, kind = read_recording(write(np.stack([audio, 0.5 * audio], axis=1), 16000))
    assert (channels.dtype, channels.shape, rate, kind) == (np.float32, (len(audio), 2), 16000, "WAV FLOAT")
    np.testing.assert_array_equal(channels[:, 1], 0.5 * audio)
    path = write(audio)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ClipError) as error:
        read_recording(path)
    assert error.value.fault is Fault.CUT_OFF


def test_what_ends_while_it_is_read_is_not_readable(write, monkeypatch):
    path = write(speech(0.1))

    def fail(*_, **__):
        raise soundfile.LibsndfileError(2, prefix=f"Error opening '{path}': ")

    monkeypatch.setattr(soundfile, "read", fail)
    with pytest.raises(ClipError, match=rf"^{path} is not readable as audio: [^:]+$") as error:
        read_recording(path)
    assert error.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize(("peak", "divided"), [(module.LOUDEST, False), (module.LOUDEST + 1, True)])
def test_integers_in_a_float_file_are_known_by_their_size(write, peak, divided):
    found = read_recording(write(np.array([0, peak, -peak / 2])))[0]
    assert np.abs(found).max() == pytest.approx(peak / 32768 if divided else peak)


def levels_of(*speaks):
    return Levels(np.where(speaks, -20.0, -90.0), hop=1000, speech=-20.0, floor=-90.0)


@pytest.mark.parametrize(
    ("speaks", "kept"),
    [
        ((0, 0, 0, 1, 1, 0, 0, 0), (2000, 6000)),  # a margin of 1000 samples at each edge
        ((0, 0, 1, 1, 1, 1, 1, 0), None),  # 1000 samples alone are less than 0.05 s
        ((0, 0, 0, 1, 1, 1, 1, 0), (2000, 8000)),
        ((0, 1, 1, 1, 1, 0, 0, 0), (0, 6000)),
        ((0, 0, 1, 1, 1, 1, 0, 0), (1000, 7000)),  # twice 1000 are not less
    ],
)
def test_edges_are_cut_where_that_is_worth_it(monkeypatch, speaks, kept):
    monkeypatch.setattr(module, "find_levels", lambda audio, rate: levels_of(*speaks))
    audio, steps, rate = np.arange(8000.0), [], 25000
    out = trim(audio, Recipe(sampling_rate=rate, margin=0.04), steps)
    start, end = kept or (0, 8000)
    assert out.tolist() == audio[start:end].tolist()
    said = f"{start / rate:.2f} s trimmed before and {(8000 - end) / rate:.2f} s behind"
    assert steps == ([said] if kept else [])
    assert len(trim(audio, Recipe(sampling_rate=rate, margin=None), [])) == 8000


@pytest.mark.parametrize(
    ("peak", "level", "gain", "limited"),
    [
        (0.1, -20.0, 10.0, False),  # the speech is at -30 dB
        (0.1, -29.91, 0.0, False),  # less than anybody hears
        (0.1, -29.89, 0.11, False),
        (0.1, -40.0, -10.0, False),
        (0.5, -20.0, 20 * np.log10(0.95 / 0.5), True),
        (1.5, -20.0, 20 * np.log10(0.95 / 1.5), True),
        (1.5, -40.0, -10.0, False),
        (0.1, None, 0.0, False),
        (0.98, None, 0.0, False),  # whoever keeps the level keeps what is not beyond full scale
        (1.0, None, 0.0, False),
        (1.2, None, 20 * np.log10(0.95 / 1.2), True),
    ],
)
def test_the_gain_is_what_the_level_asks_and_the_peak_allows(monkeypatch, peak, level, gain, limited):
    monkeypatch.setattr(module, "find_levels", lambda audio, rate: Levels(np.zeros(1), 1, speech=-30.0, floor=-90.0))
    audio, clip = np.array([0.0, -peak, peak / 2], np.float32), ConvertedClip(Figures())
    out = to_level(audio, Recipe(level=level), clip)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, audio * 10 ** (gain / 20), rtol=1e-6)
    assert clip.figures.gain == pytest.approx(gain, abs=0.005)
    assert clip.steps == ([f"{gain:+.1f} dB" + ", limited by its peak" * limited] if gain else [])


def test_steps_stand_in_their_order_and_figures_are_of_the_clip(write):
    """From a rate of 16 kHz, with a constant, silence at its edges and little level."""
    audio = 0.25 * np.concatenate([np.zeros(8000), speech(1.5, rate=16000), np.zeros(8000)]) + 0.01
    out, clip = convert(write(np.stack([audio, audio], axis=1), 16000), Recipe())
    kinds = ["2 channels mixed", "DC +0.01", "resampled from 16000 Hz", "0.", "+"]
    assert all(step.startswith(kind) for step, kind in zip(clip.steps, kinds, strict=True))
    figures = clip.figures
    assert (figures.form, figures.rate, figures.channels, figures.recorded_seconds) == ("WAV FLOAT", 16000, 2, 2.5)
    assert figures.seconds == pytest.approx(len(out) / RATE, abs=1e-4)
    assert figures.level == pytest.approx(-20, abs=1e-4)
    assert figures.level == pytest.approx(find_levels(out, RATE).speech, abs=1e-4)
    assert np.abs(out).max() < 0.95
    assert figures.level - figures.gain == pytest.approx(find_levels(audio - 0.01, 16000).speech, abs=0.2)


def test_figures_are_of_the_samples_that_are_written(write):
    """In 16 bits, where a noise below half a step is digital silence."""
    noise = 2e-6 * np.random.default_rng(0).standard_normal(RATE // 2)
    audio, clip = convert(write(np.concatenate([speech(1.5), noise])), KEEP)
    assert len(np.unique(audio[-RATE // 4 :])) > 100
    assert clip.figures.digital_silence == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("rate", [8000, RATE, 48000])
def test_lengths_are_in_seconds_whatever_the_rate_of_the_recording(write, rate):
    path = write(speech(1.0, rate=rate), rate)
    assert convert(path, Recipe(level=None, margin=None, shortest=0.9, longest=1.1))[1].figures.seconds == 1.0
    for limits, beyond in (((1.1, 2.0), "shorter than 1.1"), ((0.1, 0.9), "longer than 0.9")):
        with pytest.raises(ClipError, match=rf"has 1\.00 s of speech, {beyond} s"):
            convert(path, Recipe(level=None, margin=None, shortest=limits[0], longest=limits[1]))
