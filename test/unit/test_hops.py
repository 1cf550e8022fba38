"""Other sampling rates: any hop works, also one that is no whole number of groups, and no device falls over it."""

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from common.checkpoints import native
from common.device import pick_device
from common.layers import conv
from common.layers.channels_last import use_channels_last
from common.layers.conv import Upsampling
from common.program import UserError
from conftest import ROOT, toy_config
from runs import make_run, start
from tools.deploy.signatures import waveglow_signatures
from waveglow.model import WaveGlow
from waveglow.vocoder import Vocoder

CPU = pick_device("cpu")
ROW = re.compile(r"^\| ([0-9]+) \| ([0-9 |]+) \|$", re.MULTILINE)
KEYS = ("filter_length", "hop_length", "win_length", "mel_fmax", "n_group", "upsample_kernel")
CONFIGURATIONS = [
    (int(rate), dict(zip(KEYS, map(int, values.split(" | ")), strict=True)))
    for rate, values in ROW.findall((ROOT / "docs/data.md").read_text(encoding="utf-8"))
]


def model(hop_length, n_group=8, upsample_kernel=1024):
    torch.manual_seed(0)
    glow = WaveGlow(3, 4, n_group, 2, 2, dict(n_layers=2, n_channels=4, kernel_size=3), hop_length, upsample_kernel)
    for wn in glow.WN:  # zeros at first
        torch.nn.init.normal_(wn.end.weight, std=0.1)
    return glow.double().eval().requires_grad_(False)


@pytest.mark.parametrize("hop_length", [256, 300, 275, 240])
def test_conditions_are_those_of_the_references_formula(hop_length):
    glow, frames = model(hop_length), 9
    mel = torch.randn(2, 3, frames, dtype=torch.float64)
    upsampled = F.conv_transpose1d(mel, glow.upsample.weight, glow.upsample.bias, stride=hop_length)
    groups = frames * hop_length // 8
    upsampled = upsampled[:, :, : frames * hop_length]
    reference = upsampled.unfold(2, 8, 8).permute(0, 2, 1, 3)
    reference = reference.contiguous().view(reference.size(0), reference.size(1), -1).permute(0, 2, 1)
    torch.testing.assert_close(glow._conditioning(mel, groups, plainly=True).mel, reference)
    audio = 0.1 * torch.randn(2, frames * hop_length, dtype=torch.float64)
    z, _, _ = glow(mel, audio)
    assert z.shape == (2, 8, groups)


@pytest.mark.parametrize("hop_length", [300, 275])
def test_noise_becomes_the_audio_it_was_made_of(hop_length):
    glow, frames = model(hop_length), 8  # a whole number of groups
    mel = torch.randn(1, 3, frames, dtype=torch.float64)
    audio = 0.1 * torch.randn(1, frames * hop_length, dtype=torch.float64)
    z, _, _ = glow(mel, audio)
    early, remaining = z[:, :-6], z[:, -6:]
    torch.testing.assert_close(glow.infer(mel, noise=[remaining, early]), audio)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 7])
def test_audio_is_as_long_as_its_frames(frames, fused):
    glow = model(275)
    if fused:
        glow.fuse()
    audio = glow.infer(torch.randn(2, 3, frames, dtype=torch.float64))
    assert audio.shape == (2, frames * 275) and audio.isfinite().all()


def test_a_kernel_must_reach_to_the_end_of_the_last_group():
    with pytest.raises(ValueError, match="upsample_kernel 280 must be at least 282 with hop_length 275"):
        model(275, upsample_kernel=280)
    model(275, upsample_kernel=282).infer(torch.randn(1, 3, 3, dtype=torch.float64))


def vocoder(tmp_path, chunk_frames, **audio):
    values = toy_config()
    values["data_config"] |= audio
    run = make_run(values, tmp_path / "out")
    for wn in run.model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.05)
    (tmp_path / "out").mkdir(exist_ok=True)
    native.save(run.path(), run.state([]))
    return Vocoder(run.path(), CPU, chunk_frames=chunk_frames)


@pytest.mark.parametrize("hop_length", [300, 275])
def test_chunks_are_those_of_one_piece(tmp_path, hop_length):
    mel = torch.randn(6, 50)
    whole, parts = (vocoder(tmp_path, size, hop_length=hop_length).synthesize(mel) for size in (1000, 7))
    assert whole.shape == (50 * hop_length,)
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("hop_length", "upsample_kernel"), [(12, 19), (5, 12), (275, 282)])
def test_what_is_cut_off_behind_the_context_is_not_heard(hop_length, upsample_kernel):
    """With the shortest kernel, and where the end cuts a group."""
    glow, frames = model(hop_length, upsample_kernel=upsample_kernel), 40
    mel = torch.randn(1, 3, frames, dtype=torch.float64)
    noise = [torch.randn(shape, dtype=torch.float64) for shape in glow.noise_shapes(1, frames)]
    whole = glow.infer(mel, 1.0, noise)
    for end in range(glow.context_frames + 1, frames):
        kept = (end - glow.context_frames) * hop_length
        part = glow.infer(mel[:, :, :end], 1.0, [each[:, :, : glow.groups(end)] for each in noise])
        torch.testing.assert_close(part[:, :kept], whole[:, :kept])


def test_graphs_need_whole_groups(tmp_path):
    config = vocoder(tmp_path, 10, hop_length=275).config
    with pytest.raises(UserError, match="hop_length 275 is no multiple of n_group 8: graphs need"):
        waveglow_signatures(config)


# ---- bfloat16 ----


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("hop_length", "kernel"), [(600, 1024), (800, 3200), (275, 1100), (256, 1024)])
def test_no_transposed_convolution_in_bfloat16(monkeypatch, swapped, hop_length, kernel):
    seen = []
    plain = F.conv_transpose1d
    monkeypatch.setattr(conv.F, "conv_transpose1d", lambda x, *a, **k: (seen.append(x.dtype), plain(x, *a, **k))[1])
    layer = torch.nn.ModuleList([Upsampling(3, kernel, hop_length)])
    x = torch.randn(2, 3, 5, requires_grad=True)
    expected = plain(x, layer[0].weight, layer[0].bias, stride=hop_length)
    if swapped:
        use_channels_last(layer, CPU)
    torch.testing.assert_close(layer[0](x), expected, rtol=0, atol=2e-6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer[0](x)
    y.sum().backward()
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.02)
    assert torch.bfloat16 not in seen
    half = layer.to(torch.bfloat16)[0](x.detach().bfloat16())
    assert half.dtype == torch.bfloat16 and torch.bfloat16 not in seen


PROGRAM = """
import torch
from common.layers.conv import Upsampling
for hop_length in (600, 800):
    layer = Upsampling(4, 1024, hop_length)
    for frames in (76, 84, 92):
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.randn(1, 4, frames)).float().sum().backward()
print("alive")
"""


def test_the_process_lives_on():
    """With a stride of 600 or 800 and these frames oneDNN's transposed convolution in bfloat16 has ended it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


# ---- the configurations of docs/data.md ----


def test_there_are_configurations_for_the_usual_rates():
    assert [rate for rate, _ in CONFIGURATIONS] == [16000, 22050, 24000, 44100, 48000]


@pytest.mark.parametrize("amp", ["O0", "O1"])
@pytest.mark.parametrize(("rate", "keys"), CONFIGURATIONS)
def test_a_documented_configuration_learns_and_speaks(tmp_path, rate, keys, amp):
    (tmp_path / "wavs").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        soundfile.write(tmp_path / f"wavs/{i}.wav", 0.1 * rng.standard_normal(rate // 4), rate)
    values = toy_config()
    values["data_config"] = {name: keys[name] for name in KEYS[:4]} | {"sampling_rate": rate, "segment_length": 8192}
    values["waveglow_config"] |= {name: keys[name] for name in KEYS[4:]}
    run, _ = start(values, tmp_path, tmp_path / "out", max_steps=2, batch_size=2, amp=amp)
    assert len(run.progress.losses) == 2 and np.isfinite(run.progress.losses).all()
    audio = Vocoder(run.path(), CPU, amp).synthesize(torch.randn(6, 9) - 5)
    assert audio.shape == (9 * keys["hop_length"],) and audio.isfinite().all()
