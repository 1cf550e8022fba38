"""tools/prepare_data.py: levels, and what is measured of recordings and clips, against numbers worked out by hand."""

import hashlib

import numpy as np
import pytest
import scipy.signal
from speech_like import ROOM, silence, speech

from common.audio import to_16_bit
from conftest import RATE
from tools.prepare import levels
from tools.prepare.figures import (
    Figures,
    count_clipped,
    fingerprint,
    measure,
    of_recording,
    run_lengths,
    share_constant,
)
from tools.prepare.levels import Levels, find_levels, speech_edges


@pytest.fixture
def of_frames(monkeypatch):
    """The levels of a clip whose frames have these."""

    def find(*frames):
        monkeypatch.setattr(levels, "frame_levels", lambda audio, window, hop: np.array(frames, dtype=float))
        return find_levels(np.zeros(1), RATE)

    return find


def power_mean(*decibels):
    return 10 * np.log10(np.mean([10 ** (each / 10) for each in decibels]))


def test_frames_are_of_a_46th_of_a_second_and_four_to_a_window(monkeypatch):
    given = []
    monkeypatch.setattr(levels, "frame_levels", lambda audio, *sizes: given.append(sizes) or np.zeros(9))
    hops = [find_levels(np.zeros(1), rate).hop for rate in (RATE, 44100)]
    assert given == [(1014, 256), (2029, 512)]
    assert hops == [256, 512]


def test_speech_is_as_loud_as_its_loud_frames_in_power(of_frames):
    """Down to 25 dB below the 95th percentile, which a click does not move."""
    loud = [-20.0] * 60 + [-30.0] * 20
    for more, counts in ((-44.9, True), (-45.1, False)):
        found = of_frames(*loud, *[more] * 40)
        assert found.speech == pytest.approx(power_mean(*loud, *[more] * 40 * counts))
    with_click = of_frames(-1.0, *loud, *[-44.9] * 40)
    assert with_click.speech == pytest.approx(power_mean(-1.0, *loud, *[-44.9] * 40))


def test_the_noise_floor_is_of_the_quietest_frames_that_were_recorded(of_frames):
    """Three at least, else a fiftieth."""
    assert of_frames(-20, -61, -60, -62, -50, -95, -91).floor == pytest.approx(-61)
    assert of_frames(-20, -89).floor == pytest.approx((-20 - 89) / 2)
    many = [*range(-60, -20)] * 5  # 200 of them, five of each level
    assert of_frames(*many).floor == pytest.approx(-60)
    assert of_frames(*many, *[-70] * 4).floor == pytest.approx(-70)
    assert of_frames(*many, *[-70] * 2, -90, -91).floor == pytest.approx((2 * -70 + 2 * -60) / 4)
    assert of_frames(*[-95] * 5).floor == levels.DIGITAL_SILENCE


def test_edges_are_those_of_the_first_and_the_last_frame_that_speak():
    found = Levels(np.array([-90.0, -20, -90, -21, -90]), hop=10, speech=-20.0, floor=-90.0)
    assert speech_edges(found, 50, 0) == (10, 40)
    assert speech_edges(found, 50, 3) == (7, 43)
    assert speech_edges(found, 42, 11) == (0, 42)


@pytest.mark.parametrize(("flags", "lengths"), [("", []), ("0", []), ("1", [1]), ("0110111", [2, 3]), ("1110", [3])])
def test_each_stretch_has_its_length(flags, lengths):
    assert run_lengths(np.array([flag == "1" for flag in flags], dtype=bool)).tolist() == lengths


@pytest.mark.parametrize(
    ("audio", "count"),
    [
        ([0, 0.8, 0.8, 0.8, 0, 0.1], 3),  # flat at the top
        ([0, -0.8, -0.8, -0.8, -0.8, 0.1], 4),  # at the bottom
        ([0, 0.8, 0.8, 0, 0.8, 0], 0),  # two in a row are chance
        ([0, 0.7, 0.7, 0.7, 0, 0.8], 0),  # flat, but not at the top
        ([0, 1.0, 32767 / 32768, 1.0, 0.5, -1, 0], 3),  # full scale in 16 bits and in others
        ([0, 0.3, 0.3, 0.3, -0.9], 0),  # the top is less than what counts
        ([0.8] * 3 + [0] + [-0.8] * 3, 6),
    ],
)
def test_samples_that_were_cut_off_are_counted(audio, count):
    assert count_clipped(np.array(audio), least=0.4) == count


def test_a_stretch_without_change_counts_from_a_length_on():
    audio = np.array([0.0, 1, 1, 1, 0, 2, 2, 0, 1, 3])
    assert share_constant(audio, 3) == pytest.approx(2 / 10)  # from sample to sample
    assert share_constant(audio, 4) == 0
    assert share_constant(audio, 2) == pytest.approx(3 / 10)


def test_what_is_noted_of_a_recording():
    quiet, loud = np.array([0.1, -0.2, 0.05, 0.0]), np.array([0.1, -0.75, 0.5, 0.25])
    found = of_recording(np.stack([quiet, loud], axis=1), 8, "WAV PCM_16")
    assert found == Figures("WAV PCM_16", 8, 2, recorded_seconds=0.5, recorded_peak=0.75)
    loud = np.array([0.4, 0.4, 0.4, 0, -1, 0])  # at the top of its channel, and not half as loud as the clip
    assert of_recording(loud[:, None], 16000, "").clipped == 0
    loud[:3] = 0.6
    assert of_recording(loud[:, None], 16000, "").clipped == 3


def test_what_is_measured_of_a_clip():
    audio = np.concatenate([silence(0.5), speech(1.5, seed=3), silence(0.5), np.zeros(RATE // 50)])
    found, expected = Figures(gain=3.0), find_levels(audio, RATE)
    measure(found, audio, RATE)
    assert found.gain == 3.0  # is not its own
    assert found.seconds == pytest.approx(2.52, abs=1e-4)
    assert (found.level, found.noise_floor) == pytest.approx((expected.speech, expected.floor), abs=0.005)
    assert found.digital_silence == pytest.approx(0.02 / 2.52, abs=2e-4)
    assert found.silence == pytest.approx(1 - np.mean(expected.speaks), abs=1e-4)
    assert found.longest_pause == pytest.approx(expected.longest_pause(RATE), abs=1e-3)
    assert found.spoken_seconds == pytest.approx(1.5, abs=0.08)
    assert found.sha256 == hashlib.sha256(to_16_bit(audio).tobytes()).hexdigest()
    start, end = speech_edges(expected, len(audio), 0)
    assert found.fingerprint == fingerprint(audio[start:end], RATE)


@pytest.mark.parametrize(("length", "share"), [(0.0099, 0), (0.0102, 0.01)])
def test_a_hundredth_of_a_second_without_any_change_is_no_recording(length, share):
    audio = np.concatenate([speech(1.0), np.full(round(length * RATE), 0.25), speech(0.5)])
    found = Figures()
    measure(found, audio, RATE)
    assert found.digital_silence == pytest.approx(share / 1.5, abs=2e-3 if share else 0)


def prints(*sounds):
    codes = [np.frombuffer(bytes.fromhex(fingerprint(sound, RATE)), np.uint8).astype(float) - 128 for sound in sounds]
    assert {len(code) for code in codes} == {256}
    return np.corrcoef(codes)


def test_a_fingerprint_is_of_the_sound_whatever_its_level_noise_and_colour():
    sound = speech(2.0, seed=5, room=0)
    noise = ROOM * np.random.default_rng(0).standard_normal(len(sound))
    coloured = scipy.signal.lfilter([1, -0.9], [1], sound)
    same = prints(sound, 0.1 * sound, sound + noise, sound[: -RATE // 100], coloured)[0]
    assert same[:3].min() > 0.999
    assert same[3] > 0.95
    assert same[4] > 0.9
    assert prints(sound, speech(2.0, seed=6, room=0), sound[::-1])[0, 1:].max() < 0.85


def test_the_fingerprint_of_nothing_and_of_a_moment_is_one():
    prints(np.zeros(2000), speech(0.1))


def test_a_channel_that_was_clipped_is_counted_beside_one_that_was_not():
    audio = speech(level=0.9)
    cut = np.clip(audio, -0.6, 0.6)
    alone = of_recording(cut[:, None], RATE, "").clipped
    assert alone > 100
    for channels in ([cut, audio], [audio, cut], [cut, cut]):
        assert of_recording(np.stack(channels, axis=1), RATE, "").clipped == alone


def test_silence_is_the_share_without_speech():
    shares = []
    for quiet in (0, 2, 6):
        figures = Figures()
        measure(figures, np.concatenate([speech(2.0), *([silence(quiet)] if quiet else [])]), RATE)
        shares.append(figures.silence)
    spoken = 1 - shares[0]
    assert spoken > 0.5
    assert shares[1:] == pytest.approx([1 - spoken / 2, 1 - spoken / 4], abs=0.05)


@pytest.mark.parametrize(
    ("floor", "speaks"),
    [
        (-70.0, {-50: True, -56: False}),  # the softest consonants are 35 dB below the level of speech
        (-50.0, {-43: True, -45: False}),  # 6 dB above the noise
        (-22.0, {-28: True, -30: False}),  # 9 dB below the level of speech is speech in any noise
    ],
)
def test_what_is_speech_depends_on_the_noise_below_it(floor, speaks):
    levels = Levels(np.array([float(level) for level in speaks]), hop=256, speech=-20.0, floor=floor)
    assert levels.speaks.tolist() == list(speaks.values())
