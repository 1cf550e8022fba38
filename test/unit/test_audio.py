"""Mel spectrograms equal the reference's; wavs are read and written without surprises."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from full_disk import full_disk

from common.audio import (
    MelSpectrogram,
    check_wav,
    count_clipped,
    read_samples,
    read_wav,
    say_clipped,
    to_16_bit,
    write_wav,
)  # fmt: skip
from common.program import UserError
from conftest import RATE, ROOT


@pytest.fixture
def tone():
    return (0.5 * np.sin(np.arange(4000) / 20)).astype(np.float32)


def test_mel_equals_the_reference(ljspeech_mini):
    expected = torch.load(ROOT / "test/data/reference/mel.pt", weights_only=True)
    assert expected
    for name, mel in expected.items():
        audio = torch.from_numpy(read_wav(ljspeech_mini / "wavs" / name, RATE))
        assert (MelSpectrogram()(audio[None])[0] - mel).abs().max() < 1e-3


def test_mel_is_its_definition():
    """Written out with numpy, frame by frame."""
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 5000)
    mel = MelSpectrogram(filter_length=512, hop_length=128, win_length=512, n_mel_channels=20)
    padded = np.pad(audio, 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = np.stack([padded[i : i + 512] * window for i in range(0, len(padded) - 511, 128)])
    expected = np.log(np.maximum(mel.filters.numpy() @ np.abs(np.fft.rfft(frames)).T, 1e-5))
    actual = mel(torch.from_numpy(audio).float()[None])[0].numpy()
    assert actual.shape == (20, 5000 // 128 + 1)
    assert np.abs(actual - expected).max() < 1e-5


def test_bands_and_window_are_as_configured():
    """Nothing is heard below and above the bands; a window is in the middle of a frame, and as long as it is said."""
    audio = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, 5000)).float()[None]
    mel = MelSpectrogram(16000, 512, 128, 256, n_mel_channels=20, mel_fmin=1000.0, mel_fmax=4000.0)
    hertz = np.arange(257) * 16000 / 512
    heard = mel.filters.numpy() > 0
    assert mel.filters.shape == (20, 257) and not heard[:, (hertz <= 1000) | (hertz >= 4000)].any()
    assert heard.any(axis=0)[(hertz > 1050) & (hertz < 3950)].all()
    padded = np.pad(audio[0].numpy(), 256, mode="reflect")
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256), 128)
    frames = np.stack([padded[i : i + 512] * window for i in range(0, len(padded) - 511, 128)])
    expected = np.log(np.maximum(mel.filters.numpy() @ np.abs(np.fft.rfft(frames)).T, 1e-5))
    assert np.abs(mel(audio)[0].numpy() - expected).max() < 1e-5


def test_mel_of_silence_is_the_floor():
    assert torch.allclose(MelSpectrogram()(torch.zeros(1, 3000)), torch.tensor(1e-5).log())


def test_what_is_written_is_read_again(tmp_path, tone):
    write_wav(tmp_path / "a.wav", tone, RATE)
    again = read_wav(tmp_path / "a.wav", RATE)
    assert np.abs(again - tone).max() <= 0.5 / 32768
    write_wav(tmp_path / "b.wav", again, RATE)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_a_full_disk_is_said(tmp_path, tone):
    with full_disk(1000), pytest.raises(UserError, match="File too large"):
        write_wav(tmp_path / "a.wav", tone, RATE)
    assert not list(tmp_path.iterdir())


def test_loud_samples_are_clipped_not_wrapped():
    assert to_16_bit(np.array([-9.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [-32768, -32768, 0, 32767, 32767]


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "PCM_U8"])
def test_other_sample_formats_are_read(tmp_path, tone, subtype):
    soundfile.write(tmp_path / "a.wav", tone, RATE, subtype=subtype)
    assert np.abs(read_wav(tmp_path / "a.wav", RATE) - tone).max() < 0.01


def test_float_beyond_full_scale_is_clipped(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone * 8, RATE, subtype="FLOAT")
    assert np.abs(read_wav(tmp_path / "a.wav", RATE)).max() == 1.0


def test_a_part_is_a_part_of_the_whole(tmp_path, tone):
    write_wav(tmp_path / "a.wav", tone, RATE)
    whole = read_wav(tmp_path / "a.wav", RATE)
    for start, length in [(0, 50), (100, 50), (100, -1), (3990, 50), (3990, 10), (4000, 5), (4000, -1)]:
        end = None if length < 0 else start + length
        assert np.array_equal(read_wav(tmp_path / "a.wav", RATE, start, length), whole[start:end])


def test_long_silence_is_read_however_small_its_file_is(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(2**22, np.int16), RATE)
    assert check_wav(tmp_path / "a.flac", RATE) == 2**22 > 300 * (tmp_path / "a.flac").stat().st_size


def test_clipped_samples_are_those_at_full_scale():
    assert count_clipped(torch.tensor([1.0, -1.0, 1.5, -2.0, 0.999, -0.999, 0.0])) == 4


@pytest.mark.parametrize(
    ("clipped", "level", "said"),
    [
        (0, None, ""),
        (1, logging.INFO, "1 of 20,000 samples (0.01%) are clipped"),
        (19, logging.INFO, "19 of 20,000 samples (0.10%) are clipped"),
        (20, logging.WARNING, "20 of 20,000 samples (0.10%) are clipped"),
        (20000, logging.WARNING, "20,000 of 20,000 samples (100.00%) are clipped"),
    ],
)
def test_clipping_is_a_warning_from_one_sample_in_a_thousand_on(caplog, clipped, level, said):
    caplog.set_level(logging.INFO)
    say_clipped(clipped, 20000)
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert said in caplog.text and ("lower --sigma" in caplog.text) == bool(level)


@pytest.mark.parametrize(("start", "length", "expected"), [(0, -1, 4000), (100, -1, 3900), (0, 0, 0), (3990, 20, 10)])
def test_as_many_samples_are_read_as_there_are(tone, tmp_path, start, length, expected):
    """No fewer without an error: those of a file that breaks off are missed."""
    write_wav(tmp_path / "a.wav", tone, RATE)
    assert len(read_samples(tmp_path / "a.wav", RATE, start, length)) == expected


@pytest.mark.parametrize("start", [4000, 5000])
def test_beyond_the_end_there_is_nothing(tone, tmp_path, start):
    write_wav(tmp_path / "a.wav", tone, RATE)
    assert len(read_samples(tmp_path / "a.wav", RATE, start, 20)) == 0
