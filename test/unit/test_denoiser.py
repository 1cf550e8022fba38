"""The denoiser computes what NVIDIA/waveglow's does, and the vocoder hands its strength on."""

import numpy as np
import pytest
import torch

from waveglow.denoiser import Denoiser
from waveglow.model import WaveGlow

LENGTH, HOP = 1024, 256
WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(LENGTH) / LENGTH)
SAMPLES = 20 * HOP


@pytest.fixture(scope="module")
def model():
    """It hums, and what it hums at a place depends on 16 frames to either side."""
    torch.manual_seed(0)
    model = WaveGlow(6, 2, 8, 4, 2, dict(n_layers=1, n_channels=8, kernel_size=511))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.1)
        torch.nn.init.normal_(wn.end.bias, std=0.1)
        wn.in_layers[0].weight_g.data *= 2
    return model


def transform(audio: np.ndarray) -> np.ndarray:
    """The STFT [T, 513] of samples [N], the edges reflected."""
    padded = np.pad(audio, LENGTH // 2, mode="reflect")
    return np.fft.rfft([padded[i : i + LENGTH] * WINDOW for i in range(0, len(padded) - LENGTH + 1, HOP)])


def inverse(spectrum: np.ndarray) -> np.ndarray:
    """The samples [(T - 1) * HOP] whose STFT is nearest: frames added up, divided by what the windows add up to."""
    audio, weight = np.zeros((2, (len(spectrum) - 1) * HOP + LENGTH))
    for i, frame in enumerate(np.fft.irfft(spectrum)):
        audio[i * HOP : i * HOP + LENGTH] += frame * WINDOW
        weight[i * HOP : i * HOP + LENGTH] += WINDOW**2
    return (audio / np.maximum(weight, 1e-10))[LENGTH // 2 : -LENGTH // 2]


def hum(model: WaveGlow) -> torch.Tensor:
    """What the model makes of an empty spectrogram without noise, [1, N]."""
    return model.infer(torch.zeros(1, 6, 88), sigma=0.0)


def magnitudes(audio: torch.Tensor) -> np.ndarray:
    """[1, N] -> [T, 513]."""
    return np.abs(transform(audio[0].double().numpy()))


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0, 20.0])
def test_it_is_the_reference_s_formula(model, strength):
    """NVIDIA/waveglow's denoiser.py, mode 'zeros', written out with numpy."""
    audio = 0.3 * torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(1))
    denoised = Denoiser(hum(model))(audio, strength)
    assert denoised.shape == audio.shape
    for given, found in zip(audio.double().numpy(), denoised, strict=True):
        spectrum = transform(given)
        left = np.abs(spectrum) - strength * magnitudes(hum(model))[0]
        assert (left < 0).any() == (strength > 0)
        expected = inverse(np.maximum(left, 0) * np.exp(1j * np.angle(spectrum)))
        assert np.abs(found.numpy() - expected).max() < 1e-5


def test_the_hum_is_that_of_the_beginning(model):
    """The frames behind have another one, so that the test above tells which was taken."""
    bias = magnitudes(hum(model))
    assert Denoiser(hum(model)).bias.flatten().numpy() == pytest.approx(bias[0], abs=1e-5)
    assert min(np.abs(bias[0] - other).max() for other in (bias[1], bias[40], bias.mean(0), bias[-1])) > 0.1


@pytest.mark.parametrize("samples", [1, 300, LENGTH - 1, LENGTH, 5000])
def test_any_length_comes_back(model, samples):
    audio = 0.3 * torch.randn(1, samples)
    denoiser = Denoiser(hum(model))
    assert (denoiser(audio, 0.0) - audio).abs().max() < 2e-6
    assert denoiser(audio).shape == audio.shape
    assert torch.equal(denoiser(audio), denoiser(audio, 0.1))
