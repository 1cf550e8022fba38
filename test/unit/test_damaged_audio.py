"""Audio that is cut off, damaged, scaled or of a form that is not read is refused by name."""

import io
from functools import cache

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.announced_length import missing_bytes
from common.audio import MOST_PER_BYTE, ClipError, check_wav, read_wav
from conftest import RATE

CONTAINERS = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "OGG"]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def written(kind: str) -> bytes:
    """A file of noise, in Ogg of many pages."""
    sound = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
    soundfile.write(sound, noise, RATE, format=kind)
    return sound.getvalue()


@pytest.fixture
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)


@pytest.mark.parametrize("kind", [*CONTAINERS, "FLAC", "MP3"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused_whatever_its_format(tmp_path, noise, kind, share):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE, format=kind)
    assert len(read_wav(path, RATE)) == len(noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ClipError, match=r"a\.wav"):
        read_wav(path, RATE)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_single_missing_byte_is_noticed_by_the_header(tmp_path, noise, kind):
    path = tmp_path / "a"
    soundfile.write(path, noise, RATE, format=kind)
    assert missing_bytes(path) == 0
    path.write_bytes(path.read_bytes()[:-1])
    assert missing_bytes(path) == 1


def test_so_is_a_last_page_that_is_missing_as_a_whole(tmp_path, noise):
    """By the header; what is left ends with a page."""
    soundfile.write(tmp_path / "a.ogg", noise, RATE, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content[: content.rindex(b"OggS")])
    assert missing_bytes(tmp_path / "a.ogg") == 1


@FEW
@given(kind=st.sampled_from([*CONTAINERS, "FLAC", "MP3"]), missing=st.integers(1, 5000))
def test_so_is_what_is_missing_of_many_pages(tmp_path_factory, kind, missing):
    path = tmp_path_factory.mktemp("cut") / "a"
    content = written(kind)
    path.write_bytes(content[:-missing])
    with pytest.raises(ClipError):
        read_wav(path, RATE)


@FEW
@given(kind=st.sampled_from([*CONTAINERS, "FLAC", "MP3"]), bits=st.sets(st.integers(0, 1000), min_size=1, max_size=8))
def test_flipped_bits_of_a_header_cost_no_memory_and_no_traceback(tmp_path_factory, kind, bits):
    path = tmp_path_factory.mktemp("flipped") / "a"
    content = bytearray(written(kind))
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        assert len(read_wav(path, RATE)) <= MOST_PER_BYTE * len(content)
    except ClipError as error:
        assert str(path) in str(error)


def test_more_samples_than_a_file_can_hold(tmp_path):
    """MemoryError, where they are believed."""
    for kind, field, place, claimed in (("MP3", b"Xing", 8, 2**26), ("FLAC", b"fLaC", 22, 2**31)):
        content = bytearray(written(kind))
        start = content.index(field) + place
        content[start : start + 4] = claimed.to_bytes(4, "big")
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ClipError, match="which is not to be believed"):
            check_wav(tmp_path / "a", RATE)


def test_samples_that_are_said_to_reach_beyond_the_file(tmp_path, noise):
    """Though the first size of the wav is left open."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff" * 4
    path.write_bytes(content)
    assert check_wav(path, RATE) == len(noise)
    path.write_bytes(content[:-1000])
    with pytest.raises(ClipError, match="truncated: 1000 bytes"):
        check_wav(path, RATE)


def test_a_chunk_of_odd_length_is_filled_up_to_an_even_one(tmp_path, noise):
    """Behind it are the samples, which alone show that the file was cut off."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE)
    content = path.read_bytes()
    chunk = b"note" + (5).to_bytes(4, "little") + b"tones\0"
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:12] + chunk + content[12:-1000])
    assert missing_bytes(path) == 1000


@pytest.mark.parametrize("sign", [1, -1])
def test_floats_scaled_as_integers_are_refused(tmp_path, noise, sign):
    soundfile.write(tmp_path / "a.wav", sign * np.abs(noise) * 32768, RATE, subtype="FLOAT")
    with pytest.raises(ClipError, match=r"which are not in -1\.\.1 as floating-point audio is"):
        read_wav(tmp_path / "a.wav", RATE)


def test_a_format_that_is_not_known_must_be_converted(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A " + bytes(500))
    with pytest.raises(ClipError, match=r"a\.m4a is not readable as audio: the format is not known; .*ffmpeg"):
        check_wav(tmp_path / "a.m4a", RATE)


def test_a_stream_that_does_not_say_its_length_is_refused(tmp_path, noise):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples: the lower 36 bits from here on
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(ClipError, match="does not say how long it is"):
        check_wav(path, RATE)
