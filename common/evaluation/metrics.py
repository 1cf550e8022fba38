"""How far synthesized speech is from the speech it should equal."""

import math

import librosa
import numpy as np
import scipy.fft
from torch import Tensor

CEPSTRAL_COEFFICIENTS = 13
"Number of coefficients, as in Kubichek 1993, the source of the measure. The coefficient of loudness is left out."
LOWEST_PITCH, HIGHEST_PITCH = 65.0, 600.0
"Hz; men, women and children speak within this range."
NEAR_SILENCE = -60.0
"dB of full scale; a frame below it is a pause, whatever noise it contains."


def mel_l1(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference of two log-mel spectrograms [n_mel, T], over the frames both have."""
    frames = min(a.shape[1], b.shape[1])
    return (a[:, :frames] - b[:, :frames]).abs().mean().item()


def mel_cepstra(mel: Tensor) -> np.ndarray:
    """Coefficients [13, T] of the natural-log mel spectrogram [n_mel, T] of amplitudes, without the first one.

    The cepstrum c of a frame S is its cosine series, log S = c_0 + sum of c_m cos(m w).
    """
    series = scipy.fft.dct(mel.double().numpy(), axis=0) / mel.shape[0]
    return series[1 : CEPSTRAL_COEFFICIENTS + 1]


def mel_cepstral_distortion(a: Tensor, b: Tensor) -> float:
    """Mel cepstral distortion in dB (Kubichek 1993, doi:10.1109/PACRIM.1993.407206).

    a, b: natural-log mel spectrograms of amplitudes [n_mel, T]. Frames are compared in their order:
    spectrograms that are not in step must first be aligned along ``warping_path``.
    """
    frames = min(a.shape[1], b.shape[1])
    difference = mel_cepstra(a[:, :frames]) - mel_cepstra(b[:, :frames])
    return float(10 / math.log(10) * np.sqrt(2 * np.square(difference).sum(axis=0)).mean())


def warping_path(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The frames [P] of two log-mel spectrograms [n_mel, T] and [n_mel, S] that belong together.

    Dynamic time warping (Sakoe and Chiba 1978, doi:10.1109/TASSP.1978.1163055), by the distance that is
    the mel cepstral distortion of two frames. Memory grows with T * S.
    """
    _, path = librosa.sequence.dtw(mel_cepstra(a), mel_cepstra(b))
    ours, theirs = path[::-1].T
    return ours.copy(), theirs.copy()  # PyTorch takes no indices that run backwards in memory


def pitch(audio: np.ndarray, sampling_rate: int, hop_length: int) -> np.ndarray:
    """Fundamental frequency in Hz [N // hop_length + 1] of samples [N], nan where there is no voice.

    By probabilistic YIN (Mauch and Dixon 2014, doi:10.1109/ICASSP.2014.6853678), in steps of 10 cents.
    """
    frequency, _, _ = librosa.pyin(
        audio, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=sampling_rate, hop_length=hop_length
    )
    return frequency


def pitch_error(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference in cents of two pitches [T] in Hz, where both have voice; nan if nowhere."""
    both = ~np.isnan(a) & ~np.isnan(b)
    cents = 1200 * np.log2(a[both] / b[both])
    return float(np.sqrt(np.square(cents).mean())) if len(cents) else math.nan


def voicing_error(a: np.ndarray, b: np.ndarray) -> float:
    """The share of frames where one of two pitches [T] has voice, a number, and the other has none, nan."""
    return float((np.isnan(a) != np.isnan(b)).mean())


def frame_levels(audio: np.ndarray, frame_length: int, hop_length: int) -> np.ndarray:
    """Root mean square in dB of full scale [N // hop_length + 1] of samples [N] in -1..1, not below -100 dB."""
    (rms,) = librosa.feature.rms(y=audio, frame_length=frame_length, hop_length=hop_length)
    return 20 * np.log10(np.maximum(rms, 1e-5))


def level_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two rows of levels [T] in dB, pauses taken as equal; nan if one never changes."""
    a, b = (np.maximum(levels, NEAR_SILENCE) for levels in (a, b))
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else math.nan


def clipped_share(audio: np.ndarray) -> float:
    """The share of samples [N] in -1..1 at the end of the range, which 16 bits put at 32767/32768."""
    return float((np.abs(audio) >= 32767 / 32768).mean())
