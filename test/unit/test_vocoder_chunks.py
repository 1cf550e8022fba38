"""How a long spectrogram is taken apart for a vocoder: each chunk with all it needs, put together without seams."""

from itertools import repeat

import pytest
import torch

from common.config_reading import from_dict
from conftest import toy_config
from waveglow.config import Config, build_model
from waveglow.vocoder import BaseVocoder


class Echo(BaseVocoder):
    """In place of a model: a frame's samples are the value of its first band, and its noise on top."""

    def __init__(self, chunk_frames, least_frames=1, **data_config):
        config = toy_config()
        config["data_config"] |= data_config
        config["waveglow_config"] |= {"WN_config": {"kernel_size": 3, "n_layers": 1, "n_channels": 4}}
        config["waveglow_config"] |= {"upsample_kernel": 2 * config["data_config"].get("hop_length", 256)}
        self.config = from_dict(Config, config)
        super().__init__(self.config, build_model(self.config), chunk_frames)
        self.least_frames, self.seen = least_frames, []

    def _synthesize_chunk(self, mel, noise, sigma):
        hop = self.model.hop_length
        assert [n.shape for n in noise] == self.model.noise_shapes(1, mel.shape[1])
        self.seen.append(mel[0].tolist())
        samples = noise[0][0, :1].repeat_interleave(self.model.n_group, dim=1)[:, : mel.shape[1] * hop]
        return mel[:1].repeat_interleave(hop, dim=1) + sigma * samples


def ramp(frames):
    return torch.arange(frames).float()[None].expand(6, -1) / 1000


def whole(vocoder, mel, sigma, seed):
    noise = torch.randn(vocoder.model.noise_shapes(1, mel.shape[1])[0], generator=torch.Generator().manual_seed(seed))
    samples = noise[0, :1].repeat_interleave(vocoder.model.n_group, dim=1)[0, : mel.shape[1] * vocoder.model.hop_length]
    return (mel[0].repeat_interleave(vocoder.model.hop_length) + sigma * samples).clamp(-1, 1)


@pytest.mark.parametrize("frames", [1, 9, 10, 11, 57])
@pytest.mark.parametrize("hop", [256, 200, 100])
def test_chunks_put_together_are_the_whole_with_the_same_noise(frames, hop):
    """Of any hop, also where groups of samples lie across frames."""
    vocoder, mel = Echo(10, hop_length=hop), ramp(frames)
    for seed in (1234, 5):
        assert torch.equal(vocoder.synthesize(mel, 0.05, seed=seed), whole(vocoder, mel, 0.05, seed))
    assert torch.equal(vocoder.synthesize(mel, 0.6), whole(vocoder, mel, 0.6, 1234))
    assert torch.equal(vocoder.synthesize(mel), vocoder.synthesize(mel, 0.6, 0.0, 1234))


def test_nothing_becomes_nothing():
    assert Echo(10).synthesize(torch.zeros(6, 0)).shape == (0,)


@pytest.mark.parametrize(("hop", "grid"), [(256, 1), (128, 2), (100, 64)])
def test_a_chunk_gets_its_context_on_both_sides_and_no_more(hop, grid):
    """But for the beginning, which lies on the grid of the denoiser's frames: 64 frames of 100 are 25 hops of 256."""
    vocoder = Echo(10, hop_length=hop)
    list(vocoder.stream(ramp(200), 0.0, 0.0, 1, repeat(10)))
    assert vocoder.grid == grid and 8 < vocoder.context < 30
    for number, seen in enumerate(vocoder.seen):
        first, last = round(1000 * seen[0]), round(1000 * seen[-1])
        wanted = max(0, 10 * number - vocoder.context)
        assert first % vocoder.grid == 0 and wanted - vocoder.grid < first <= wanted
        assert last == min(199, 10 * number + 9 + vocoder.context)


@pytest.mark.parametrize("least", [1, 40, 90])
def test_a_model_gets_as_many_frames_as_it_needs_at_least(least):
    """As far as there are so many: taken from before the chunk."""
    vocoder, mel = Echo(5, least), ramp(100)
    assert torch.equal(vocoder.synthesize(mel, 0.0), whole(vocoder, mel, 0.0, 1))
    ends = [round(1000 * seen[-1]) + 1 for seen in vocoder.seen]
    assert all(len(seen) >= min(least, end) for seen, end in zip(vocoder.seen, ends, strict=True))
    assert min(map(len, vocoder.seen[-3:])) <= max(least, 2 * vocoder.context + 5 + vocoder.grid)


def test_chunks_are_as_long_as_asked_but_for_the_largest():
    vocoder, mel = Echo(10), ramp(40)
    chunks = list(vocoder.stream(mel, 0.0, 0.0, 1, iter([1, 4, 10, 11, 99, 3, 3, 3, 3])))
    assert [len(chunk) // 256 for chunk in chunks] == [1, 4, 10, 10, 10, 3, 2]
    assert torch.equal(torch.cat(chunks), whole(vocoder, mel, 0.0, 1))


def test_audio_is_cut_at_full_scale():
    audio = Echo(3).synthesize(torch.linspace(-4, 4, 8)[None].expand(6, -1), 0.0)
    assert (audio.min(), audio.max()) == (-1, 1)
