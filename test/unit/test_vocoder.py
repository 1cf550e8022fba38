"""The vocoder: what it adds to the model, and chunks of a model that looks far."""

from dataclasses import replace

import pytest
import torch
from vocoder_toys import make_checkpoint, mel

from common import cuda_graph, inference
from runs import CPU
from waveglow.denoiser import Denoiser
from waveglow.model import WaveGlow
from waveglow.vocoder import DENOISER_CONTEXT, Vocoder
from waveglow.wn import WN

MODELS = {
    "far": ({}, {"n_flows": 2, "WN_config": {"n_layers": 1, "n_channels": 8, "kernel_size": 511}}),
    "near": ({"hop_length": 320}, {"upsample_kernel": 320, "WN_config": {"kernel_size": 1, "n_layers": 1}}),
}
"Of data_config and waveglow_config. One looks farther than the denoiser; the other no farther than its frame."
HOPS = {f"a hop of {hop}": ({"hop_length": hop}, {}) for hop in (64, 256, 320)}
"Models that see as far as toys do, as far as the denoiser or less."


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Checkpoints of these models, in which far places count."""
    return {
        name: make_checkpoint(tmp_path_factory.mktemp("model") / "waveglow_3", *of)
        for name, of in (MODELS | HOPS).items()
    }


@pytest.fixture
def path(paths):
    return paths["far"]


def of_the_model(vocoder: Vocoder, mel: torch.Tensor, sigma: float, seed: int = 1234) -> torch.Tensor:
    """What the model alone makes of the whole mel spectrogram, [1, N]."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(shape, generator=generator) for shape in vocoder.model.noise_shapes(1, mel.shape[1])]
    return vocoder.model.infer(mel[None], sigma, noise)


def test_audio_stays_in_its_range(path):
    vocoder = Vocoder(path, CPU)
    plain = of_the_model(vocoder, mel(12), 3.0)[0]
    assert plain.min() < -1 and plain.max() > 1
    audio = vocoder.synthesize(mel(12), 3.0)
    assert (audio.min(), audio.max()) == (-1, 1)
    assert (audio - plain.clamp(-1, 1)).abs().max() < 3e-6


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.5])
def test_strength_and_sigma_reach_model_and_denoiser(path, strength):
    vocoder = Vocoder(path, CPU)
    plain = of_the_model(vocoder, mel(12), 0.2, seed=7)
    hum = vocoder.model.infer(torch.zeros(1, 6, 88), sigma=0.0)
    expected = Denoiser(hum)(plain, strength)
    assert (vocoder.synthesize(mel(12), 0.2, strength, seed=7) - expected.clamp(-1, 1)).abs().max() < 3e-6


def test_the_hum_is_heard_once_in_88_frames_of_silence_without_noise(path, monkeypatch):
    """As in NVIDIA's code; and not at all where nothing is to be subtracted."""
    vocoder, asked = Vocoder(path, CPU), []
    make = vocoder._synthesize_chunk

    def spy(mel, noise, sigma):
        if mel.shape[1] != 5:
            asked.append((mel.shape, mel.abs().max().item(), [each.abs().max().item() for each in noise], sigma))
        return make(mel, noise, sigma)

    monkeypatch.setattr(vocoder, "_synthesize_chunk", spy)
    vocoder.synthesize(mel(5), 0.6, 0.0)
    assert not asked
    for _ in range(2):
        vocoder.synthesize(mel(5), 0.6, 0.1)
    assert asked == [((6, 88), 0.0, [0.0] * len(vocoder.model.noise_shapes(1, 88)), 0.0)]


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("chunk_frames", [7, 9, 17, 64, 99])
@pytest.mark.parametrize("name", MODELS | HOPS)
def test_chunks_see_all_that_model_and_denoiser_see(paths, name, chunk_frames, strength):
    """Each of them is the one that looks farther once."""
    whole = Vocoder(paths[name], CPU, chunk_frames=10_000)
    assert (whole.model.context_frames * whole.model.hop_length > DENOISER_CONTEXT) == (name == "far")
    parts = Vocoder(paths[name], CPU, chunk_frames=chunk_frames)
    audio = whole.synthesize(mel(100), 0.3, strength)
    assert audio.shape == (100 * whole.model.hop_length,) and audio.std() > 0.1
    assert (audio - parts.synthesize(mel(100), 0.3, strength)).abs().max() < 2e-6


def test_what_follows_is_heard_in_the_frames_before_it(paths):
    """So that chunks without context would differ from the whole."""
    vocoder = Vocoder(paths["a hop of 256"], CPU, chunk_frames=10_000)
    half = vocoder.synthesize(mel(100)[:, :50], 0.0)
    assert (vocoder.synthesize(mel(100), 0.0)[: 50 * 256] - half).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_kernels_rounded_once_are_those_of_autocast(paths, name, monkeypatch):
    """Bit for bit; the denoiser runs with them, too."""
    once = Vocoder(paths[name], CPU, "O1")
    for wn in once.model.WN:
        for layer in (wn.cond_layer, *wn.in_layers, *wn.res_skip_layers):
            assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
        assert wn.end.weight.dtype == wn.end.bias.dtype == torch.float32  # which would lose what the layers add up
    monkeypatch.setattr(WN, "round_kernels", lambda self, dtype: None)
    each_time = Vocoder(paths[name], CPU, "O1")
    for strength in (0.0, 0.2):
        spoken = [vocoder.synthesize(mel(20), 0.6, strength) for vocoder in (once, each_time)]
        assert spoken[0].abs().max() > 0.01
        assert torch.equal(*spoken)


def test_freed_memory_is_kept(path, monkeypatch):
    """Getting it from the system again, page by page, takes long clips in int8 as much time as computing."""
    kept = []
    monkeypatch.setattr(inference, "keep_freed_memory", kept.append)
    Vocoder(path, CPU)
    assert kept == [CPU]


@pytest.mark.parametrize("samples", [1, 513, 1023, 1024, 1025, 5000])
def test_what_is_shorter_than_a_transform_has_the_spectrogram_of_silence_behind_it(path, samples):
    vocoder, audio = Vocoder(path, CPU), 0.1 * torch.randn(samples)
    filled = torch.cat([audio, torch.zeros(max(0, 1024 - samples))])
    assert torch.equal(vocoder.spectrogram(audio), vocoder.mel(filled[None])[0])


@pytest.mark.parametrize("amp", ["O0", "O1", "O2"])
def test_the_size_of_a_vocoder_is_that_of_its_weights(path, amp):
    """In bytes, as they are kept; in the precision that is asked for."""
    vocoder = Vocoder(path, CPU, amp)
    assert vocoder.bytes == sum(each.numel() * each.element_size() for each in vocoder.model.state_dict().values())
    assert vocoder.precision.level == amp
    assert vocoder.model.WN[0].cond_layer.weight.dtype == (torch.float32 if amp == "O0" else torch.bfloat16)


def test_on_a_cuda_card_it_is_recorded(path, monkeypatch):
    """The audio is the same: the clip is filled up, and what is too much cut off."""
    monkeypatch.setattr(cuda_graph, "recorded", lambda work, card: recordings.append(work) or work)
    recordings = []
    there, here = (Vocoder(path, device, "O0", chunk_frames=20) for device in (replace(CPU, type="cuda"), CPU))
    for frames in (5, 33, 90):
        assert (there.synthesize(mel(frames), 0.7) - here.synthesize(mel(frames), 0.7)).abs().max() < 3e-6
    assert len(recordings) == 1  # of the length of the middle chunks


def test_only_a_chunk_at_a_time_is_in_memory(paths, monkeypatch):
    lengths = []
    original = WaveGlow.infer
    spy = lambda self, mel, *rest: lengths.append(mel.shape[2]) or original(self, mel, *rest)  # noqa: E731
    monkeypatch.setattr(WaveGlow, "infer", spy)
    vocoder = Vocoder(paths["a hop of 256"], CPU, chunk_frames=20)
    vocoder.synthesize(torch.randn(6, 300))
    assert len(lengths) == 15
    assert max(lengths) <= 20 + 2 * (vocoder.model.context_frames + 8)
