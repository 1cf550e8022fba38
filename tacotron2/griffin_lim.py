"""Mel spectrograms to audio without a trained vocoder (Griffin & Lim 1984): rough, but immediate."""

import math

import librosa
import numpy as np
import torch
from torch import Tensor

from common.audio import MelSpectrogram

ITERATIONS = 60


class GriffinLim:
    """Finds samples whose spectrogram matches the mel bands."""

    def __init__(self, mel: MelSpectrogram):
        self.mel = mel
        self.inverse = torch.linalg.pinv(mel.filters)

    def synthesize(self, mel: Tensor, seed: int = 1234) -> Tensor:
        """mel [n_mel, T] on the CPU -> audio [T * hop_length] in -1..1; the phases begin at random, by ``seed``."""
        # One frame more than there are hops, and no fewer samples than a Fourier transform takes.
        hops = max(mel.shape[1], math.ceil(self.mel.filter_length / self.mel.hop_length))
        padded = torch.nn.functional.pad(mel, (0, hops + 1 - mel.shape[1]), value=math.log(1e-5))
        magnitudes = (self.inverse @ padded.exp()).clamp(min=0)
        audio = librosa.griffinlim(
            magnitudes.numpy(),
            n_iter=ITERATIONS,
            hop_length=self.mel.hop_length,
            win_length=len(self.mel.window),
            n_fft=self.mel.filter_length,
            random_state=np.random.RandomState(seed % 2**32),
        )
        return torch.from_numpy(audio[: mel.shape[1] * self.mel.hop_length]).float().clamp(-1.0, 1.0)
