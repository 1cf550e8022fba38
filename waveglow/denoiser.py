"""Take away the hum that a WaveGlow adds to everything it says."""

import torch
from torch import Tensor, nn

from waveglow.model import WaveGlow

BIAS_FRAMES = 88
"Length of the silence whose synthesis shows the hum, as in NVIDIA/waveglow."


class Denoiser(nn.Module):
    """Spectral subtraction of the model's bias: what it synthesizes from an empty spectrogram without noise.

    Equal to NVIDIA/waveglow's denoiser in its 'zeros' mode. Runs on the CPU in float32.
    """

    def __init__(self, waveglow: WaveGlow, filter_length: int = 1024, hop_length: int = 256):
        super().__init__()
        self.filter_length = filter_length
        self.hop_length = hop_length
        weight = waveglow.upsample.weight
        silence = weight.new_zeros(1, weight.shape[0], BIAS_FRAMES)
        self.register_buffer("window", torch.hann_window(filter_length))
        self.register_buffer("bias", self._stft(waveglow.infer(silence, sigma=0.0).float().cpu()).abs()[:, :, :1])

    def forward(self, audio: Tensor, strength: float = 0.1) -> Tensor:
        """audio [B, N], strength of the subtraction (0 = none) -> [B, N]."""
        samples = audio.shape[1]
        # The reflection at the edges of the STFT needs more than half a window.
        spectrum = self._stft(nn.functional.pad(audio, (0, max(0, self.filter_length - samples))))
        magnitude = (spectrum.abs() - strength * self.bias).clamp(min=0.0)
        denoised = torch.istft(
            torch.polar(magnitude, spectrum.angle()),
            self.filter_length,
            self.hop_length,
            window=self.window,
            length=max(samples, self.filter_length),
        )
        return denoised[:, :samples]

    def _stft(self, audio: Tensor) -> Tensor:
        return torch.stft(audio, self.filter_length, self.hop_length, window=self.window, return_complex=True)
