"""Audio in and out, and the mel spectrogram both models are built on."""

import io
import logging
import os
from enum import IntEnum, auto
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from common.announced_length import FORMATS, missing_bytes
from common.files import written_whole
from common.program import UserError

log = logging.getLogger(__name__)

CONVERT = "convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav"
UNKNOWN_FORMAT = 1
"libsndfile's number for what it does not know, M4A and WMA among them."
LONGEST = 2**40
"Samples. Where a file does not state its length, libsndfile reports more than this."
MOST_PER_BYTE = 8192
"Samples that a byte of a file may stand for; digital silence in FLAC comes to some 5,000."
LOUDEST = 16.0
"No recording is 24 dB beyond full scale: larger samples were multiplied by 128, 32768 or the like."
# A stretch below this root mean square (-80 dB, 3 steps of 16 bit) is no speech and no room noise
# but digital silence: the likelihood of a constant has no upper bound, and training on it ends in NaN.
NEAR_SILENT_RMS = 1e-4
HEARD_CLIPPED = 1e-3
"Share of samples from which on clipping causes a warning."


class MelSpectrogram(nn.Module):
    """Log-mel spectrogram, equal to the TacotronSTFT of NVIDIA/tacotron2.

    Magnitudes of a centred STFT (periodic Hann window, reflected edges), Slaney-normalized mel
    filters, natural logarithm clamped at 1e-5.
    """

    filters: Tensor
    "[n_mel, filter_length // 2 + 1]"
    window: Tensor
    "[win_length]"

    def __init__(
        self,
        sampling_rate: int = 22050,
        filter_length: int = 1024,
        hop_length: int = 256,
        win_length: int = 1024,
        n_mel_channels: int = 80,
        mel_fmin: float = 0.0,
        mel_fmax: float = 8000.0,
    ):
        super().__init__()
        self.sampling_rate = sampling_rate
        self.filter_length = filter_length
        self.hop_length = hop_length
        self.win_length = win_length
        filters = librosa.filters.mel(
            sr=sampling_rate, n_fft=filter_length, n_mels=n_mel_channels, fmin=mel_fmin, fmax=mel_fmax
        )
        # Not persistent: they follow from the configuration and are no part of a checkpoint.
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """audio [B, N] in -1..1, N > filter_length / 2 -> [B, n_mel_channels, N // hop_length + 1]."""
        spectrum = torch.stft(
            audio,
            self.filter_length,
            self.hop_length,
            self.win_length,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return torch.log(torch.clamp(self.filters @ spectrum.abs(), min=1e-5))


class Fault(IntEnum):
    """Why a clip cannot be used; the larger, the worse."""

    SHORT = auto()
    TEXT = auto()
    "Its text is missing, or leaves nothing to speak."
    FORMAT = auto()
    "Another sampling rate, several channels, a format that is not read."
    SILENT = auto()
    SCALED = auto()
    "Floating-point samples far beyond -1..1."
    NOT_FINITE = auto()
    CUT_OFF = auto()
    UNREADABLE = auto()
    MEL = auto()
    "The mel spectrogram that is given with it is missing, of another length or not a mel spectrogram."


class ClipError(UserError):
    """A clip that cannot be used. From a loader process it arrives with its message alone."""

    def __init__(self, message: str, fault: Fault = Fault.UNREADABLE):
        super().__init__(message)
        self.fault = fault


def sound_of(path: str | Path) -> bytes | io.BytesIO:
    """What libsndfile is to open. By the name alone it would take the ``._a.mp3`` that macOS puts beside ``a.mp3`` for
    a part of it."""
    path = Path(path)
    return io.BytesIO(path.read_bytes()) if path.with_name(f"._{path.name}").exists() else os.fsencode(path)


def look_at(path: str | Path) -> soundfile._SoundFileInfo:
    """The header of an audio file of any rate. ClipError if it is unreadable, cut off or empty, if it does not say
    how long it is, and for formats that do not show whether they were cut off."""
    try:
        missing = missing_bytes(path)
        info = soundfile.info(sound_of(path))
    except UserError as error:
        raise ClipError(str(error)) from error
    except (soundfile.SoundFileError, OSError) as error:
        raise ClipError(f"{path} is not readable as audio: {_reason(path, error)}") from error
    if info.format not in FORMATS:
        raise ClipError(f"{path} has the format {info.format}, which is not supported; {CONVERT}", Fault.FORMAT)
    if missing:
        how_many = f"{missing} bytes fewer than its header announces"
        why = "its last page is missing or cut off" if info.format == "OGG" else how_many
        raise ClipError(f"{path} is truncated: {why}", Fault.CUT_OFF)
    if info.frames > LONGEST:
        raise ClipError(
            f"{path} does not say how long it is, as {info.format} from a pipe does not; {CONVERT}",
            Fault.FORMAT,
        )
    size = Path(path).stat().st_size
    if info.frames > MOST_PER_BYTE * size:
        raise ClipError(f"{path} claims {info.frames} samples in {size} bytes, which is not to be believed")
    if info.frames == 0:
        raise ClipError(f"{path} holds no samples", Fault.SHORT)
    return info


def check_wav(path: str | Path, sampling_rate: int) -> int:
    """Check the header of a wav (FLAC, AIFF and the like will do) and return the number of samples.

    Refuses with ClipError what training must not silently change: another sampling rate, more than
    one channel, a truncated or empty file, anything but audio. Any sample format is fine.
    """
    info = look_at(path)
    if info.samplerate != sampling_rate or info.channels != 1:
        raise ClipError(
            f"{path} has {info.samplerate} Hz and {info.channels} channel(s), but must have {sampling_rate} Hz and 1;"
            f" convert it: sox IN.wav -r {sampling_rate} -c 1 -b 16 OUT.wav",
            Fault.FORMAT,
        )
    return info.frames


def read_samples(
    path: str | Path, sampling_rate: int, start: int = 0, length: int = -1, frames: int | None = None
) -> np.ndarray:
    """Samples [N] as float32, ``length`` of them from ``start`` on (-1 = all); ``frames``: what ``check_wav`` returned.

    16, 24, 32 bit and float files become float32; those of a float file may be a little beyond -1..1.
    Raises ClipError as ``check_wav`` does, for a file that breaks off, and for samples that are not
    finite or of another scale.
    """
    frames = check_wav(path, sampling_rate) if frames is None else frames
    wanted = frames - start if length < 0 else min(length, frames - start)
    try:
        audio, _ = soundfile.read(sound_of(path), length, start, dtype="float32")
    except (soundfile.SoundFileError, OSError) as error:
        raise ClipError(f"{path} is not readable as audio: {_reason(path, error)}") from error
    check_whole(path, audio, wanted)
    peak = float(np.abs(audio).max(initial=0))
    if peak > LOUDEST:
        raise ClipError(
            f"{path} holds samples up to {peak:.0f}, which are not in -1..1 as floating-point audio is;"
            " divide them by what they were multiplied with, such as 32768",
            Fault.SCALED,
        )
    return audio


def check_whole(path: str | Path, audio: np.ndarray, announced: int) -> None:
    """ClipError if there are fewer samples [N, ...] than the header announced, or some that are not finite."""
    if len(audio) < announced:
        raise ClipError(f"{path} is truncated: {announced - len(audio)} samples fewer than announced", Fault.CUT_OFF)
    if not np.isfinite(audio).all():
        raise ClipError(f"{path} holds samples that are not finite numbers", Fault.NOT_FINITE)


def read_wav(
    path: str | Path, sampling_rate: int, start: int = 0, length: int = -1, frames: int | None = None
) -> np.ndarray:
    """As ``read_samples``, [N] in -1..1: what a float file holds beyond is clipped."""
    return np.clip(read_samples(path, sampling_rate, start, length, frames), -1.0, 1.0)


def is_near_silent(audio: np.ndarray) -> bool:
    """Whether samples [N] are quieter than any speech: below NEAR_SILENT_RMS."""
    return float(np.sqrt(np.mean(np.square(audio)))) < NEAR_SILENT_RMS


def to_16_bit(audio: np.ndarray | Tensor) -> np.ndarray:
    """Samples [...] in -1..1 as 16-bit integers; louder ones are clipped, not wrapped around."""
    audio = np.asarray(audio, dtype=np.float32)
    return np.clip(np.round(audio * 32768.0), -32768, 32767).astype(np.int16)


def count_clipped(audio: Tensor) -> int:
    """How many samples [N] are at or beyond full scale."""
    return int((audio.abs() >= 1).sum())


def say_clipped(clipped: int, samples: int) -> None:
    """Say how many of the synthesized samples were clipped, if any were."""
    if clipped:
        level = logging.WARNING if clipped >= HEARD_CLIPPED * samples else logging.INFO
        share = f"{clipped:,} of {samples:,} samples ({clipped / samples:.2%})"
        log.log(level, "%s are clipped at full scale: a lower --sigma is less loud", share)


def write_wav(path: str | Path, audio: np.ndarray | Tensor, sampling_rate: int) -> None:
    """Write samples [N] in -1..1 as a 16-bit wav, whole or not at all. WriteError if that fails."""
    wav = io.BytesIO()  # on a full disk libsndfile itself says no more than that it wrote too little
    soundfile.write(wav, to_16_bit(audio), sampling_rate, format="WAV", subtype="PCM_16")
    with written_whole(path) as file:
        file.write(wav.getvalue())


def _reason(path: str | Path, error: Exception) -> str:
    if not Path(path).exists():
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if Path(path).stat().st_size == 0:
        return "the file is empty"
    if getattr(error, "code", 0) == UNKNOWN_FORMAT:
        return f"the format is not known; if it is audio, {CONVERT}"
    return str(error).rsplit(": ", 1)[-1]
