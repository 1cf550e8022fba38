"""The bytes of each format: whole where it may be sent at once, and what of it is ready when."""

import io
import struct

import numpy as np
import pytest
import soundfile

formats = pytest.importorskip("tools.serve.audio_formats", reason="requirement-serve.txt is not installed")
RATE = 22050
TONE = (8000 * np.sin(2 * np.pi * 441 * np.arange(2 * RATE) / RATE)).astype(np.int16)


def parts_of(name, rate=RATE, audio=TONE, count=8):
    encode = formats.make_encoder(name, rate)
    return [encode(part) for part in np.array_split(audio, count)] + [encode(None)]


def test_each_format_has_its_media_type():
    assert formats.MEDIA_TYPES == {
        "wav": "audio/wav", "pcm": "audio/pcm", "flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg",
    }  # fmt: skip


def test_pcm_is_the_samples_and_a_wav_has_a_header_before_them():
    expected = [part.astype("<i2").tobytes() for part in np.array_split(TONE, 8)]
    assert parts_of("pcm") == [*expected, b""]
    assert parts_of("wav") == [formats.wav_header(RATE) + expected[0], *expected[1:], b""]
    assert formats.make_encoder("wav", RATE)(None) == formats.wav_header(RATE)


@pytest.mark.parametrize("rate", [16000, RATE])
def test_the_header_of_a_wav_of_unknown_length(rate):
    header = formats.wav_header(rate)
    assert struct.unpack("<4sI4s4sIHHIIHH4sI", header) == (
        b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", 2**32 - 1,
    )  # fmt: skip


def test_a_flac_is_sent_as_a_whole_since_its_header_has_the_length():
    parts = parts_of("flac")
    assert [bool(part) for part in parts] == [False] * 8 + [True]
    audio, rate = soundfile.read(io.BytesIO(parts[-1]), dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(audio, TONE)


def test_an_mp3_comes_as_it_is_made_with_the_same_number_of_bytes_a_second():
    parts = parts_of("mp3")
    assert sum(bool(part) for part in parts[:-1]) >= 6
    longer = sum(map(len, parts_of("mp3", audio=np.tile(TONE, 3))))
    bits = 8 * (longer - sum(map(len, parts))) / 4  # of 4 s more
    assert bits == pytest.approx(96_000, rel=0.03)
    audio, rate = soundfile.read(io.BytesIO(b"".join(parts)))
    assert rate == RATE
    assert len(audio) == pytest.approx(len(TONE), abs=3000)
    assert np.sqrt(np.mean(audio[5000:40000] ** 2)) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate", [16000, RATE, 24000, 44100])
def test_opus_keeps_pitch_and_length(rate):
    seconds = 2
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(seconds * rate) / rate)).astype(np.int16)
    parts = parts_of("opus", rate, tone)
    assert any(parts[:-1])
    audio, found = soundfile.read(io.BytesIO(b"".join(parts)))
    assert len(audio) / found == pytest.approx(seconds, abs=0.001)
    spectrum = np.abs(np.fft.rfft(audio))
    assert spectrum.argmax() / seconds == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("samples", [RATE, RATE + 100])  # with the latter the resampler's last ones fill a page of Ogg
def test_no_sample_is_lost_where_a_format_needs_another_rate(samples):
    encode = formats.make_encoder("opus", RATE)
    audio = np.full(samples, 9000, np.int16)
    data = b"".join(encode(part) for part in (*np.array_split(audio, 7), None))
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.frames / file.samplerate == pytest.approx(samples / RATE, abs=0.001)
