"""Audio that is cut off, damaged, scaled or of a form that is not read is refused by name."""

import io
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_settings import FEW

from common.announced_length import missing_bytes
from common.audio import MOST_PER_BYTE, ClipError, Fault, check_wav, look_at, read_wav
from conftest import RATE

CONTAINERS = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "OGG"]


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


def test_a_last_page_that_is_missing_as_a_whole_is_noticed_by_the_header(tmp_path, noise):
    """By the header; what is left ends with a page."""
    soundfile.write(tmp_path / "a.ogg", noise, RATE, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content[: content.rindex(b"OggS")])
    assert missing_bytes(tmp_path / "a.ogg") == 1


@FEW
@given(kind=st.sampled_from([*CONTAINERS, "FLAC", "MP3"]), missing=st.integers(1, 5000))
def test_what_is_missing_of_many_pages_is_noticed(tmp_path_factory, kind, missing):
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


def test_more_samples_than_a_file_can_hold_are_refused(tmp_path):
    """MemoryError, where they are believed."""
    for kind, field, place, claimed in (("MP3", b"Xing", 8, 2**26), ("FLAC", b"fLaC", 22, 2**31)):
        content = bytearray(written(kind))
        start = content.index(field) + place
        content[start : start + 4] = claimed.to_bytes(4, "big")
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ClipError, match="which is not to be believed"):
            check_wav(tmp_path / "a", RATE)


def test_samples_that_are_said_to_reach_beyond_the_file_are_missed(tmp_path, noise):
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


@pytest.mark.parametrize(
    ("samples", "said", "fault"),
    [
        (8192 * 100, "", None),  # 8192 a byte of the file
        (8192 * 100 + 1, "claims 819201 samples in 100 bytes, which is not to be believed", Fault.UNREADABLE),
        (2**40, "claims 1099511627776 samples in 100 bytes", Fault.UNREADABLE),
        (2**40 + 1, "does not say how long it is, as FLAC from a pipe does not; convert it", Fault.FORMAT),
        (2**63 - 1, "does not say how long it is", Fault.FORMAT),
        (0, "holds no samples", Fault.SHORT),
    ],
)
def test_how_many_samples_a_header_may_announce(tmp_path, monkeypatch, samples, said, fault):
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(96))
    header = SimpleNamespace(format="FLAC", frames=samples, samplerate=RATE, channels=1)
    monkeypatch.setattr(soundfile, "info", lambda file: header)
    if not said:
        assert check_wav(tmp_path / "a.flac", RATE) == samples
        return
    with pytest.raises(ClipError, match=rf"a\.flac {said}") as refused:
        check_wav(tmp_path / "a.flac", RATE)
    assert refused.value.fault == fault


def spoil(kind, path, noise):
    """A file at ``path`` that cannot be used for the reason ``kind``."""
    match kind:
        case "missing":
            return
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("no audio")
        case "header":
            soundfile.write(path, noise, RATE)
            path.write_bytes(path.read_bytes()[:20])
        case "no samples":
            soundfile.write(path, noise[:0], RATE)
        case "rate":
            soundfile.write(path, noise, 16000)
        case "channels":
            soundfile.write(path, np.stack([noise, noise], axis=1), RATE)
        case "format":
            soundfile.write(path, noise, RATE, format="CAF")
        case "cut off" | "page":
            soundfile.write(path, noise, RATE, format="OGG" if kind == "page" else "WAV")
            path.write_bytes(path.read_bytes()[:-9])
        case _:
            value = {"nan": np.nan, "infinite": np.inf, "negative": -np.inf, "loud": 16.1, "loud below": -16.1}[kind]
            soundfile.write(path, np.where(np.arange(len(noise)) == 70, value, noise), RATE, subtype="FLOAT")


REASONS = {
    "missing": ("is not readable as audio: no such file", Fault.UNREADABLE),
    "empty": ("is not readable as audio: the file is empty", Fault.UNREADABLE),
    "folder": ("is not readable as audio: Is a directory", Fault.UNREADABLE),
    "text": ("the format is not known; if it is audio, convert it: ffmpeg", Fault.UNREADABLE),
    "header": ("is not readable as audio: ", Fault.UNREADABLE),
    "no samples": ("holds no samples", Fault.SHORT),
    "rate": ("has 16000 Hz and 1 channel(s), but must have 22050 Hz and 1; convert it: sox", Fault.FORMAT),
    "channels": ("2 channel(s), but must have 22050 Hz and 1; convert it: sox IN.wav -r 22050 -c 1", Fault.FORMAT),
    "format": ("has the format CAF, which is not supported; convert it: ffmpeg", Fault.FORMAT),
    "cut off": ("is truncated: 9 bytes fewer than its header announces", Fault.CUT_OFF),
    "page": ("is truncated: its last page is missing or cut off", Fault.CUT_OFF),
    "nan": ("holds samples that are not finite numbers", Fault.NOT_FINITE),
    "infinite": ("holds samples that are not finite numbers", Fault.NOT_FINITE),
    "negative": ("holds samples that are not finite numbers", Fault.NOT_FINITE),
    "loud": ("holds samples up to 16, which are not in -1..1", Fault.SCALED),
    "loud below": ("holds samples up to 16, which are not in -1..1", Fault.SCALED),
}  # fmt: skip


@pytest.mark.parametrize("kind", REASONS)
def test_a_clip_that_cannot_be_used_is_refused_with_its_name_and_the_reason(tmp_path, noise, kind):
    """In one line with its name; how bad it is decides which faults of a corpus are said first."""
    path = tmp_path / "a.wav"
    spoil(kind, path, noise)
    said, fault = REASONS[kind]
    with pytest.raises(ClipError) as refused:
        read_wav(path, RATE)
    assert str(refused.value).startswith(f"{path} ") and said in str(refused.value)
    assert "\n" not in str(refused.value) and refused.value.fault == fault
    assert str(refused.value).count(str(path)) == 1  # libsndfile says it again


def test_16_times_full_scale_is_read(tmp_path, noise):
    soundfile.write(tmp_path / "a.wav", np.append(noise, [16.0, -16.0]), RATE, subtype="FLOAT")
    assert np.array_equal(read_wav(tmp_path / "a.wav", RATE)[-2:], [1, -1])


def test_a_file_that_macos_puts_beside_another_is_no_part_of_it(tmp_path, noise):
    """By the name alone libsndfile would open ._a.mp3 with a.mp3."""
    soundfile.write(tmp_path / "a.mp3", noise, RATE)
    (tmp_path / "._a.mp3").write_bytes(b"\0\5\x16\7\0\2\0\0" + bytes(100))
    assert look_at(tmp_path / "a.mp3").frames == len(read_wav(tmp_path / "a.mp3", RATE)) == len(noise)
