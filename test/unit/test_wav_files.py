"""Wavs that are written piece by piece."""

import io
import struct
import wave

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import wav_files
from common.announced_length import missing_bytes
from common.audio import to_16_bit
from common.wav_files import HEADER, wav_writer

LARGEST = 2000
"In place of 4 GB."


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=st.lists(st.integers(0, 1000), max_size=4), rate=st.sampled_from([8000, 22050, 48000]))
def test_of_any_length_it_is_read_as_it_was_written(tmp_path_factory, lengths, rate):
    """Also if it is too long for RIFF, by one sample or by many; and a part of it is known to be one."""
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    parts = [torch.linspace(-1, 1, length) for length in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wav_files, "LARGEST", LARGEST)
        with wav_writer(path, rate) as write:
            for part in parts:
                write(part)
    audio, its_rate = soundfile.read(path, dtype="int16")
    written = to_16_bit(torch.cat([torch.zeros(0), *parts]))
    assert np.array_equal(audio, written) and its_rate == rate
    is_large = path.stat().st_size - 8 > LARGEST
    assert soundfile.info(path).format == ("RF64" if is_large else "WAV")
    assert path.stat().st_size == HEADER + 2 * len(written) and missing_bytes(path) == 0
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert missing_bytes(path) == 1


def test_the_limit_is_that_of_32_bits():
    file = io.BytesIO()
    with wave.open(file, "wb") as other:
        other.setparams((1, 2, 22050, 0, "NONE", ""))
    form = file.getvalue()[12:40]
    size = 2**32 - HEADER + 6
    sizes = b"RIFF\xfe\xff\xff\xffWAVEJUNK\x1c\0\0\0" + bytes(28)
    assert wav_files._header(22050, size) == sizes + form + struct.pack("<I", size)
    for size in (2**32 - HEADER + 8, 2**33):
        sizes = b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + struct.pack("<QQQI", HEADER - 8 + size, size, size // 2, 0)
        assert wav_files._header(22050, size) == sizes + form + struct.pack("<I", min(size, 2**32 - 1))


def test_what_was_not_finished_is_not_there(tmp_path):
    """And an earlier wav of that name stays."""
    for rest in ([], ["a.wav"]):
        with pytest.raises(KeyError), wav_writer(tmp_path / "a.wav", 22050) as write:
            write(torch.zeros(10))
            raise KeyError
        assert [path.name for path in tmp_path.iterdir()] == rest
        with wav_writer(tmp_path / "a.wav", 8000) as write:
            write(torch.ones(3))
    audio, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert audio.tolist() == [32767] * 3 and rate == 8000
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.channels, info.subtype, info.format) == (1, "PCM_16", "WAV")
