"""How far a synthesized mel spectrogram is from the one it was made of."""

import math

import numpy as np
import scipy.fft
from torch import Tensor

CEPSTRAL_COEFFICIENTS = 13
"As in Kubichek 1993, where the measure comes from; the first one, loudness, is left out."


def mel_l1(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference of two log-mel spectrograms [n_mel, T], over the frames both have."""
    frames = min(a.shape[1], b.shape[1])
    return (a[:, :frames] - b[:, :frames]).abs().mean().item()


def mel_cepstral_distortion(a: Tensor, b: Tensor) -> float:
    """Mel cepstral distortion in dB (Kubichek 1993, doi:10.1109/PACRIM.1993.407206).

    a, b: natural-log mel spectrograms of amplitudes [n_mel, T]; the cepstrum c of one is their cosine
    series, log S = c_0 + sum of c_m cos(m w). Frames are compared as they stand: both come from the
    same clip, so there is nothing to warp.
    """
    frames = min(a.shape[1], b.shape[1])
    difference = (a[:, :frames] - b[:, :frames]).double().numpy()
    series = scipy.fft.dct(difference, axis=0) / difference.shape[0]
    cepstra = series[1 : CEPSTRAL_COEFFICIENTS + 1]
    return float(10 / math.log(10) * np.sqrt(2 * np.square(cepstra).sum(axis=0)).mean())
