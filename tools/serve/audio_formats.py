"""16-bit samples to the bytes of a format, as they come."""

import io
import struct
from collections.abc import Callable

import numpy as np
import soundfile
import soxr

OPUS_RATE = 24000
"Samples a second: Opus knows few rates, and 22,050 is none of them."
MP3_COMPRESSION = 0.4
"libsndfile's measure: 0 is the largest and best; this one gives 96 kbit/s at 22,050 Hz."
UNKNOWN_LENGTH = 0xFFFFFFFF
"In the header of a wav whose end is not known when it begins, as OpenAI's service has it."

MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
}

Encoder = Callable[[np.ndarray | None], bytes]
"Gives the bytes that are ready after further samples [N] int16; after None, which ends it, the rest."


def make_encoder(name: str, rate: int) -> Encoder:
    """An encoder of mono audio for one of ``MEDIA_TYPES``; ``rate`` in samples a second."""
    if name in ("pcm", "wav"):
        return _plain(wav_header(rate) if name == "wav" else b"")
    if name == "opus":
        return _resampled(_compressed("OGG", "OPUS", OPUS_RATE), rate)
    return _compressed(*{"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III")}[name], rate)


def wav_header(rate: int) -> bytes:
    """The header of a 16-bit mono wav of unknown length."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    length = struct.pack("<I", UNKNOWN_LENGTH)
    return b"RIFF" + length + b"WAVEfmt " + form + b"data" + length


def _plain(header: bytes) -> Encoder:
    waiting = [header]

    def encode(samples: np.ndarray | None) -> bytes:
        begin = waiting.pop() if waiting else b""
        return begin + (b"" if samples is None else samples.astype("<i2").tobytes())

    return encode


def _compressed(container: str, subtype: str, rate: int) -> Encoder:
    """By libsndfile, which writes the lengths into a header at the end: too late for what was sent by then.

    A flac without them is refused by many programs, so it is sent as a whole; players work out the length of an mp3
    from its bytes, of which every second has the same number here.
    """
    buffer = io.BytesIO()
    settings = {"bitrate_mode": "CONSTANT", "compression_level": MP3_COMPRESSION} if container == "MP3" else {}
    file = soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=container, **settings)
    sent = 0

    def encode(samples: np.ndarray | None) -> bytes:
        nonlocal sent
        if samples is None:
            file.close()
        else:
            file.write(samples)
            if container == "FLAC":
                return b""
        ready = bytes(buffer.getbuffer()[sent:])
        sent += len(ready)
        return ready

    return encode


def _resampled(encode: Encoder, rate: int) -> Encoder:
    resampler = soxr.ResampleStream(rate, OPUS_RATE, 1, dtype="int16")

    def encode_resampled(samples: np.ndarray | None) -> bytes:
        last = samples is None
        more = resampler.resample_chunk(np.zeros(0, np.int16) if samples is None else samples, last=last)
        ready = encode(more)
        return ready + encode(None) if last else ready

    return encode_resampled
