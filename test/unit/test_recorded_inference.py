"""WaveGlow's inference as a CUDA card replays it: lengths are filled up, the audio stays that of the clip alone. A
stand-in replays what was recorded."""

from dataclasses import replace

import pytest
import torch
from graph_tape import taped

from common import cuda_graph
from common.device import pick_device
from waveglow import recorded
from waveglow.model import WaveGlow

CPU = pick_device("cpu")
CUDA = replace(CPU, type="cuda")
LENGTHS = [1, 31, 32, 33, 50, 64, 70]
MODELS = {
    "by group": dict(n_group=8),
    "by frame": dict(n_group=64),
    "a frame is no whole number of groups": dict(n_group=8, hop_length=275),
    "sees far": dict(n_group=16, WN_config=dict(n_layers=1, n_channels=8, kernel_size=1023)),
}


@pytest.fixture
def recordings(monkeypatch):
    """The number of recordings so far."""
    made = []
    monkeypatch.setattr(cuda_graph, "recorded", lambda work, card: made.append(work) or taped(work, card))
    return made


def model(n_group, hop_length=256, WN_config=None):
    torch.manual_seed(0)
    sizes = WN_config or dict(n_layers=3, n_channels=8, kernel_size=3)
    glow = WaveGlow(4, 4, n_group, 2, 2, sizes, hop_length, 1024)
    for wn in glow.WN:  # zeros at first
        torch.nn.init.normal_(wn.end.weight, std=0.1)
        torch.nn.init.normal_(wn.end.bias, std=0.1)
    return glow.eval().requires_grad_(False)


def inputs(glow, frames, batch=1):
    return torch.randn(batch, 4, frames) - 3, [torch.randn(shape) for shape in glow.noise_shapes(batch, frames)]


@pytest.mark.parametrize("kind", MODELS)
def test_audio_is_that_of_the_clip_alone(recordings, kind):
    """Also when another length was filled up to the same, and with another sigma."""
    glow = model(**MODELS[kind])
    glow.fuse()
    infer = recorded.recorded_inference(glow, CUDA)
    for sigma in (0.6, 1.0, 0.0, 0.8):
        for frames in LENGTHS:
            mel, noise = inputs(glow, frames)
            expected = glow.infer(mel, sigma, noise)
            found = infer(mel, sigma, noise)
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < 2e-6 * expected.abs().max(), frames
    assert len(recordings) == 3


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_behind_the_end_counts_without_the_mask(kind):
    """Else the test before would show nothing."""
    glow = model(**MODELS[kind])
    mel, noise = inputs(glow, 64)
    inside = torch.ones(1, 1, glow.groups(64))
    inside[:, :, glow.groups(40) :] = 0
    samples = 40 * glow.hop_length
    masked, plain = (glow.infer(mel, 1.0, noise, each)[:, :samples] for each in (inside, None))
    assert (masked - plain).abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_half_precision_several_clips_at_once(recordings, dtype):
    """By autocast, and with the input in half precision too."""
    glow = model(n_group=8)
    glow.fuse()
    infer = recorded.recorded_inference(glow, CUDA)
    mel, noise = inputs(glow, 40, batch=3)
    exact = glow.infer(mel, 0.7, noise)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(4):
            audio = infer(mel.to(dtype), 0.7, [each.to(dtype) for each in noise])
            assert (audio - exact).norm() < 0.02 * exact.norm()
    assert len(recordings) == 1


def test_sigma_is_not_rounded_in_half_precision(recordings, monkeypatch):
    """Nor does it turn the noise into float32."""
    glow, sigmas = model(n_group=8).bfloat16(), []
    monkeypatch.setattr(glow, "infer", lambda mel, sigma, noise, inside: sigmas.append(sigma) or sigma * mel[:, 0])
    audio = recorded.recorded_inference(glow, CUDA)(torch.ones(1, 4, 32).bfloat16(), 0.7, [])
    assert sigmas == [torch.tensor(0.7)] and audio.dtype == torch.bfloat16


def test_elsewhere_it_is_the_model(recordings):
    glow = model(n_group=8)
    assert recorded.recorded_inference(glow, CPU) == recorded.recorded_inference(glow, replace(CPU, type="npu"))
    assert recorded.recorded_inference(glow, CPU) == glow.infer


def test_lengths_are_few_and_little_is_thrown_away(recordings, monkeypatch):
    glow, lengths = model(n_group=8, hop_length=275), []
    monkeypatch.setattr(glow, "infer", lambda mel, sigma, noise, inside: lengths.append(mel.shape[2]) or mel[:, 0])
    infer = recorded.recorded_inference(glow, CUDA)
    for frames in (1, 31, 32, 33, 64, 65):
        infer(torch.zeros(1, 4, frames), 1.0, [])
    assert lengths == [32, 32, 32, 64, 64, 96] and len(recordings) == 1
