"""Griffin-Lim: any mel spectrogram becomes audio of its length that has about this spectrogram."""

import math
import warnings

import pytest
import torch

from common.audio import MelSpectrogram
from tacotron2.griffin_lim import GriffinLim

MEL = MelSpectrogram(filter_length=256, hop_length=64, win_length=256, n_mel_channels=20)


def mel_of_tones(frames, loudness=0.2, mel=MEL):
    time = torch.arange(frames * 64) / 22050
    tones = loudness * torch.sin(2 * torch.pi * torch.tensor([[400.0], [2500.0]]) * time).sum(0, True)
    return mel(tones)[0, :, :frames]


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 40])
def test_any_length_becomes_a_hop_for_each_frame(frames):
    audio = GriffinLim(MEL).synthesize(torch.full((20, frames), -4.0))
    assert audio.shape == (frames * 64,) and audio.dtype == torch.float32
    assert torch.isfinite(audio).all() and audio.abs().max() > 0


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("hop_length", [64, 100, 256])
def test_no_length_is_too_short_for_the_transform(frames, hop_length):
    """Also where it is no multiple of the hop: librosa would warn."""
    griffin_lim = GriffinLim(
        MelSpectrogram(filter_length=256, hop_length=hop_length, win_length=256, n_mel_channels=20)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(griffin_lim.synthesize(torch.full((20, frames), -4.0))) == frames * hop_length


@pytest.mark.parametrize("win_length", [256, 128])
def test_the_audio_has_the_spectrogram(win_length):
    """Also where the window is shorter than the Fourier transform."""
    spectrogram = MelSpectrogram(filter_length=256, hop_length=64, win_length=win_length, n_mel_channels=20)
    mel = mel_of_tones(40, mel=spectrogram)
    heard = spectrogram(GriffinLim(spectrogram).synthesize(mel)[None])[0]
    expected, found = (each[:, 4:36].exp() for each in (mel, heard))  # the edges are followed by silence
    assert (found - expected).abs().sum() < 0.2 * expected.sum()


def test_the_audio_is_in_step_with_the_spectrogram():
    """To a fraction of a hop: the middle of a sound stays where it is."""
    time = torch.arange(40 * 64)
    sound = 0.5 * torch.sin(2 * torch.pi * 1000 / 22050 * time) * (-(((time - 1000) / 150) ** 2)).exp()
    heard = GriffinLim(MEL).synthesize(MEL(sound[None])[0, :, :40])
    middle, expected = ((time * each**2).sum() / (each**2).sum() for each in (heard, sound))
    assert abs(middle - expected) < 16


def test_behind_the_end_is_silence():
    """Which is heard in the last frames of a spectrogram, all of them in a short one."""
    silence = torch.full((20, 2), math.log(1e-5))
    assert GriffinLim(MEL).synthesize(silence).abs().max() < 1e-3


def test_what_is_too_loud_is_clipped_at_full_scale():
    audio = GriffinLim(MEL).synthesize(mel_of_tones(20, loudness=3.0))
    assert (audio.min().item(), audio.max().item()) == (-1, 1)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63 - 1])
def test_the_seed_decides(seed):
    griffin_lim, mel = GriffinLim(MEL), mel_of_tones(8)
    audio = griffin_lim.synthesize(mel, seed)
    assert torch.equal(audio, griffin_lim.synthesize(mel, seed))
    assert not torch.equal(audio, griffin_lim.synthesize(mel, seed ^ 1))
