"""Removes the hum that a WaveGlow adds to everything it says."""

import torch
from torch import Tensor, nn

FILTER_LENGTH, HOP_LENGTH = 1024, 256
"Sizes of the denoiser's own STFT in samples, independent of the model's."
BIAS_FRAMES = 88
"Length of the silence whose synthesis shows the hum, as in NVIDIA/waveglow."


class Denoiser(nn.Module):
    """Spectral subtraction of the model's bias: what it synthesizes from an empty spectrogram without noise.

    Equal to NVIDIA/waveglow's denoiser in its 'zeros' mode. Runs on the CPU in float32.
    """

    window: Tensor
    "[FILTER_LENGTH]"
    bias: Tensor
    "[1, FILTER_LENGTH // 2 + 1, 1]"

    def __init__(self, hum: Tensor):
        """``hum`` [1, N]: what the model makes of an empty spectrogram of BIAS_FRAMES without noise."""
        super().__init__()
        self.register_buffer("window", torch.hann_window(FILTER_LENGTH))
        self.register_buffer("bias", self._stft(hum).abs()[:, :, :1])

    def forward(self, audio: Tensor, strength: float = 0.1) -> Tensor:
        """audio [B, N], strength of the subtraction (0 = none) -> [B, N]."""
        samples = audio.shape[1]
        # The reflection at the edges of the STFT needs more than half a window.
        spectrum = self._stft(nn.functional.pad(audio, (0, max(0, FILTER_LENGTH - samples))))
        magnitude = (spectrum.abs() - strength * self.bias).clamp(min=0.0)
        denoised = torch.polar(magnitude, spectrum.angle())
        return torch.istft(denoised, FILTER_LENGTH, HOP_LENGTH, window=self.window, length=samples)

    def _stft(self, audio: Tensor) -> Tensor:
        """audio [B, N] -> complex [B, FILTER_LENGTH // 2 + 1, N // HOP_LENGTH + 1]."""
        return torch.stft(audio, FILTER_LENGTH, HOP_LENGTH, window=self.window, return_complex=True)
