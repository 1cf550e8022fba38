"""Measures of speech: what differs in a known way is measured so."""

import math

import numpy as np
import pytest
import torch
from speech_like import voice

from common.audio import MelSpectrogram
from common.evaluation import metrics
from conftest import RATE

MEL = MelSpectrogram()
HOP = MEL.hop_length


def mel_of(audio):
    return MEL(torch.from_numpy(audio)[None])[0]


def pitch_of(audio):
    return metrics.pitch(audio, RATE, HOP)


def test_a_known_pitch_shift_is_the_pitch_error():
    error = metrics.pitch_error(pitch_of(voice()), pitch_of(voice(cents=200)))
    assert error == pytest.approx(200, abs=1)  # the search goes by 10


def test_pitch_is_in_hertz_and_has_a_frame_for_each_of_the_mel_s():
    audio = voice()
    pitch = pitch_of(audio)
    assert len(pitch) == mel_of(audio).shape[1] == len(metrics.frame_levels(audio, 1024, HOP))
    assert np.nanmean(pitch) == pytest.approx(150, rel=1e-3)
    assert np.isnan(pitch_of(0.3 * np.random.default_rng(0).standard_normal(RATE))).mean() > 0.8


def test_pitches_are_compared_where_both_have_voice():
    nan = math.nan
    a, b = np.array([100.0, 100.0, nan, 100.0, nan]), np.array([200.0, 100.0, 70.0, nan, nan])
    assert metrics.pitch_error(a, b) == pytest.approx(1200 / math.sqrt(2))
    assert metrics.voicing_error(a, b) == pytest.approx(2 / 5)
    assert math.isnan(metrics.pitch_error(a[2:], b[2:]))


def test_a_gain_changes_the_mel_distance_by_its_logarithm_and_the_cepstra_not():
    a, b = mel_of(voice()), mel_of(voice(loudness=0.6))
    assert metrics.mel_l1(a, b) == pytest.approx(math.log(2), abs=2e-6)
    assert metrics.mel_cepstral_distortion(a, b) < 1e-5
    noise = torch.randn(80, 30)
    assert metrics.mel_cepstral_distortion(noise, noise + 1) == pytest.approx(0, abs=1e-6)


def test_the_mel_distance_is_a_mean_over_the_frames_that_both_have():
    a, b = torch.randn(80, 30), torch.randn(80, 40)
    assert metrics.mel_l1(a, a) == metrics.mel_cepstral_distortion(a, a) == 0
    assert metrics.mel_l1(a, b) == metrics.mel_l1(b, a) == pytest.approx((a - b[:, :30]).abs().mean().item())


@pytest.mark.parametrize(
    ("coefficient", "counts"), [(0, False), (1, True), (3, True), (12, True), (13, True), (14, False)]
)
def test_the_distortion_is_of_thirteen_coefficients(coefficient, counts):
    """A cosine of amplitude 1 on top is sqrt(2) * 10 / ln 10 dB, if it is the cosine of one of them."""
    a = torch.randn(80, 30, generator=torch.Generator().manual_seed(0))
    cosine = torch.cos(torch.pi * coefficient * (torch.arange(80) + 0.5) / 80)[:, None]
    expected = math.sqrt(2) * 10 / math.log(10) if counts else 0
    assert metrics.mel_cepstral_distortion(a, a + cosine) == pytest.approx(expected, rel=5e-6, abs=1e-5)


def test_the_distortion_is_a_mean_over_frames():
    """Of the root in each frame, not the root of the mean."""
    a = torch.zeros(80, 4)
    b = torch.cos(torch.pi * (torch.arange(80) + 0.5) / 80)[:, None] * torch.tensor([1.0, 3.0, 0.0, 0.0])
    assert metrics.mel_cepstral_distortion(a, b) == pytest.approx(math.sqrt(2) * 10 / math.log(10), abs=1e-6)


@pytest.mark.parametrize("frequency", [75, 550])
def test_low_and_high_voices_have_a_pitch(frequency):
    time = np.arange(RATE // 3) / RATE
    tone = sum(0.1 * np.sin(2 * np.pi * n * frequency * time) for n in range(1, 6))
    assert np.nanmedian(pitch_of(tone)) == pytest.approx(frequency, rel=0.01)


def test_warping_finds_what_was_put_in_between():
    """Frames said twice, and a pause before; each frame meets its equal."""
    a = torch.randn(80, 40, generator=torch.Generator().manual_seed(0))
    source = np.array([0] * 7 + list(range(20)) + [20] * 5 + list(range(21, 40)))
    ours, theirs = metrics.warping_path(a, a[:, source])
    assert np.array_equal(ours, source[theirs])
    assert metrics.mel_cepstral_distortion(a[:, ours], a[:, source][:, theirs]) == 0
    assert metrics.mel_cepstral_distortion(a, a[:, source]) > 1


def test_warping_aligns_slower_speech():
    a, b = mel_of(voice(1.0)), mel_of(voice(1.3))
    ours, theirs = metrics.warping_path(a, b)
    assert (ours[0], theirs[0], ours[-1], theirs[-1]) == (0, 0, a.shape[1] - 1, b.shape[1] - 1)
    aligned = metrics.mel_cepstral_distortion(a[:, ours], b[:, theirs])
    assert aligned < 0.5 * metrics.mel_cepstral_distortion(a, b)
    pitches = pitch_of(voice(1.0)), pitch_of(voice(1.3))
    assert metrics.pitch_error(pitches[0][ours], pitches[1][theirs]) < 25
    assert metrics.pitch_error(pitches[0], pitches[1][: len(pitches[0])]) > 50


def test_the_level_of_a_frame_is_that_of_its_mean_power_in_decibels():
    tone = np.sin(np.arange(RATE) / 5).astype(np.float32)
    levels = metrics.frame_levels(tone, 1024, HOP)
    assert levels[10:-10] == pytest.approx(20 * math.log10(math.sqrt(0.5)), abs=0.05)
    assert np.all(metrics.frame_levels(0 * tone, 1024, HOP) == pytest.approx(-100))


def test_levels_correlate_where_at_least_one_is_above_a_pause():
    a = np.array([-20.0, -30.0, -25.0, -40.0])
    assert metrics.level_correlation(a, a - 6) == pytest.approx(1)
    assert metrics.level_correlation(a, -60 - a) == pytest.approx(-1)
    assert metrics.level_correlation([*a, -70, -99], [*a, -99, -70]) == pytest.approx(1)  # pauses are equal
    assert metrics.level_correlation([*a, -52, -59], [*a, -59, -52]) < 0.99  # above -60 dB there is no pause
    for other in (np.full(4, -20.0), np.array([-61.0, -70.0, -80.0, -99.0])):  # always as loud, or never heard
        assert math.isnan(metrics.level_correlation(a, other)) and math.isnan(metrics.level_correlation(other, a))


def test_samples_at_full_scale_are_clipped():
    assert metrics.clipped_share(np.array([-1.0, 32767 / 32768, 32766 / 32768, 0.0], np.float32)) == 0.5
