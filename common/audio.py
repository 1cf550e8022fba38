"""Audio in and out, and the mel spectrogram both models are built on."""

import io
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from common.files import written_whole
from common.program import UserError


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


def check_wav(path: str | Path, sampling_rate: int) -> int:
    """Look at a wav's header: the number of samples.

    Refuses with UserError what training must not silently change: another sampling rate, more than
    one channel, a truncated or empty file, what is no audio. Any sample format is fine.
    """
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path} is not readable as audio: {_reason(path, error)}") from error
    if info.samplerate != sampling_rate or info.channels != 1:
        raise UserError(
            f"{path} has {info.samplerate} Hz and {info.channels} channel(s), needed are {sampling_rate} Hz and 1;"
            f" convert it: sox IN.wav -r {sampling_rate} -c 1 -b 16 OUT.wav"
        )
    if missing := _missing_bytes(path):
        raise UserError(f"{path} is truncated: {missing} bytes fewer than its header announces")
    if info.frames == 0:
        raise UserError(f"{path} holds no samples")
    return info.frames


def read_wav(path: str | Path, sampling_rate: int, start: int = 0, length: int = -1) -> np.ndarray:
    """Samples [N] as float32 in -1..1, ``length`` of them from ``start`` on (-1 = all).

    16, 24, 32 bit and float files become float32; what a float file holds beyond -1..1 is clipped.
    Raises UserError as ``check_wav`` does, and for samples that are not finite.
    """
    check_wav(path, sampling_rate)
    try:
        audio, _ = soundfile.read(str(path), length, start, dtype="float32")
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path} is not readable as audio: {_reason(path, error)}") from error
    if not np.isfinite(audio).all():
        raise UserError(f"{path} holds samples that are not finite numbers")
    return np.clip(audio, -1.0, 1.0)


def to_16_bit(audio: np.ndarray | Tensor) -> np.ndarray:
    """Samples in -1..1 as 16-bit integers; louder ones are clipped, not wrapped around."""
    audio = np.asarray(audio, dtype=np.float32)
    return np.clip(np.round(audio * 32768.0), -32768, 32767).astype(np.int16)


def write_wav(path: str | Path, audio: np.ndarray | Tensor, sampling_rate: int) -> None:
    """Write samples [N] in -1..1 as a 16-bit wav, whole or not at all. UserError if that fails."""
    wav = io.BytesIO()  # on a full disk libsndfile itself says no more than that it wrote too little
    soundfile.write(wav, to_16_bit(audio), sampling_rate, format="WAV", subtype="PCM_16")
    try:
        with written_whole(path) as file:
            file.write(wav.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _reason(path: str | Path, error: Exception) -> str:
    if not Path(path).exists():
        return "no such file"
    if Path(path).stat().st_size == 0:
        return "the file is empty"
    return str(error).rsplit(": ", 1)[-1]


def _missing_bytes(path: str | Path) -> int:
    """By how many bytes a RIFF file is shorter than its header says; 0 for other formats.

    libsndfile reads a cut-off wav without a word. Programs that write to a pipe leave the length
    open (0 or close to 2**31 or 2**32), which is no truncation.
    """
    with open(path, "rb") as file:
        header = file.read(8)
        size = file.seek(0, 2)
    announced = int.from_bytes(header[4:8], "little") + 8
    if header[:4] != b"RIFF" or announced >= 2**31 - 2**16:
        return 0
    return max(0, announced - size)
