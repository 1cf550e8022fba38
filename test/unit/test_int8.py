"""Convolutions in 8-bit integers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common import inference
from common.config import NpuConfig
from common.device import Device
from common.evaluation.metrics import mel_l1
from common.layers import int8
from common.layers.conv import Conv1d
from common.layers.int8 import Int8Conv1d, use_int8, why_no_int8
from common.program import UserError
from conftest import ROOT
from runs import CPU, torch_version
from waveglow.config import Config, build_mel, build_model
from waveglow.vocoder import Vocoder

needs_vnni = pytest.mark.skipif(bool(why_no_int8(CPU)), reason="the processor has no VNNI")

LAYERS = [
    dict(in_channels=64, out_channels=128),
    dict(in_channels=64, out_channels=96, kernel_size=3, dilation=4),
    dict(in_channels=24, out_channels=72, kernel_size=5),
]


def test_convolutions_are_in_integers_only_where_asked():
    model = nn.Sequential(Conv1d(**LAYERS[0]))
    inference.prepare(model, CPU, "O0", NpuConfig())
    assert not any(isinstance(module, Int8Conv1d) for module in model.modules())


def both(layer: dict) -> tuple[Conv1d, nn.Module]:
    torch.manual_seed(0)
    plain, fast = Conv1d(**layer), Conv1d(**layer)
    plain.weight.data *= torch.logspace(-3, 0, len(plain.weight))[:, None, None]
    fast.load_state_dict(plain.state_dict())
    use_int8(fast, CPU)
    assert type(fast) is Int8Conv1d
    return plain, fast


@needs_vnni
@pytest.mark.parametrize("frames", [1, 3, 50])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_errors_are_those_of_rounding(layer, batch, frames, dtype):
    """Each factor is off by up to half a step, evenly spread and of either sign: the variances of all terms add up.

    A step is 1/127 of the largest weight of the output channel, here from 0.001 to 1, and of the largest input of
    the clip.
    """
    plain, fast = both(layer)
    x = (torch.randn(batch, layer["in_channels"], frames) * torch.logspace(-2, 0, batch)[:, None, None]).to(dtype)
    found = fast(x)
    assert found.dtype == dtype and found.transpose(1, 2).is_contiguous()
    expected = plain(x.float())
    weight_step = plain.weight.abs().amax((1, 2)) / 127
    input_step = x.float().abs().amax((1, 2)) / 127
    by_input = plain.weight.square().sum((1, 2)) * input_step[:, None] ** 2  # [B, out]
    ones = torch.ones_like(plain.weight)
    by_weight = plain.convolve(x.float().square(), ones) * weight_step[:, None] ** 2  # [B, out, T]
    of_the_output = (expected * torch.finfo(dtype).eps).square()
    variance = (by_input[:, :, None] + by_weight + of_the_output) / 12
    ratio = (found.float() - expected).abs() / variance.sqrt()
    assert ratio.square().mean().sqrt() < 1.1
    assert ratio.max() < 6


@pytest.mark.skipif("ONEDNN_MAX_CPU_ISA" in os.environ, reason="oneDNN is limited")
@pytest.mark.skipif(torch_version() < (2, 5), reason="some of these releases lack the operators")
def test_nothing_but_the_processor_is_a_reason_against_it():
    """A mistake in looking at it would leave out the tests here, too."""
    assert why_no_int8(CPU) in ("", "needs a processor with VNNI")


@needs_vnni
@torch.no_grad()
def test_integers_are_exact():
    """What is a multiple of the scales comes out as it is, edges and zeros included."""
    torch.manual_seed(0)
    plain, fast = Conv1d(32, 48, kernel_size=3, dilation=2), Conv1d(32, 48, kernel_size=3, dilation=2)
    plain.weight.copy_(torch.randint(-127, 128, plain.weight.shape))
    plain.weight[:, 0, 0] = 127
    fast.load_state_dict(plain.state_dict())
    use_int8(fast, CPU)
    x = torch.randint(-127, 128, (2, 32, 9)).float()
    x[:, 0, 0] = 127
    expected = plain(x)
    assert (fast(x) - expected).abs().max() < 2**-22 * expected.abs().max()
    assert torch.equal(fast(torch.zeros(1, 32, 9)), plain.bias[None, :, None].expand(1, -1, 9))


@needs_vnni
@torch.no_grad()
def test_each_channel_has_a_scale_of_its_own():
    """Weight norm makes some a hundred times as large as others, which would leave nothing of the small ones."""
    torch.manual_seed(0)
    plain, fast = Conv1d(64, 128), Conv1d(64, 128)
    size = torch.logspace(-4, 1, 128)[:, None]
    plain.weight.copy_(torch.randn(128, 64, 1) * size[..., None])
    plain.bias.zero_()
    fast.load_state_dict(plain.state_dict())
    use_int8(fast, CPU)
    x = torch.randn(1, 64, 200)
    error = (fast(x) - plain(x))[0].std(dim=1) / plain(x)[0].std(dim=1)
    assert error.max() < 0.02  # measured: 0.015


@needs_vnni
@torch.no_grad()
def test_a_channel_without_weights_gives_its_bias_and_a_silent_clip_all_biases():
    plain, fast = Conv1d(32, 48, kernel_size=3), Conv1d(32, 48, kernel_size=3)
    plain.weight[5] = 0
    fast.load_state_dict(plain.state_dict())
    use_int8(fast, CPU)
    assert (fast(torch.randn(2, 32, 9))[:, 5] == plain.bias[5]).all()
    assert torch.equal(fast(torch.zeros(1, 32, 9))[0, :, 0], plain.bias)


@needs_vnni
@torch.no_grad()
def test_a_clip_in_a_batch_is_what_it_is_alone():
    _, fast = both(LAYERS[1])
    x = torch.randn(3, 64, 20) * torch.tensor([0.01, 1, 100])[:, None, None]
    for i in range(3):
        assert torch.equal(fast(x)[i], fast(x[i : i + 1])[0])


@needs_vnni
@torch.no_grad()
def test_in_parts():
    (_, whole), (_, fast) = both(LAYERS[0]), both(LAYERS[0])
    x = torch.randn(2, 64, 7)
    for _ in range(2):
        parts = list(fast.forward_in_parts(x, 4))
        assert [part.shape[1] for part in parts] == [32] * 4
        assert (torch.cat(parts, 1) - whole(x)).abs().max() < 1e-6


def test_which_layers_run_so(monkeypatch):
    monkeypatch.setattr(int8, "why_no_int8", lambda device: "")
    model = nn.ModuleList([Conv1d(4, 128), Conv1d(64, 128), Conv1d(64, 128, bias=False), nn.Conv1d(64, 128, 1)])
    use_int8(model, CPU)
    assert [type(layer) for layer in model] == [Conv1d, Int8Conv1d, Conv1d, nn.Conv1d]


def test_where_it_cannot_be(monkeypatch):
    card = Device("cuda", torch.device("cpu"), "nccl", torch.float16, "O1", "")
    with pytest.raises(UserError, match="int8 is for CPUs only: take another precision"):
        use_int8(nn.Module(), card)
    monkeypatch.setattr(int8, "_cpu_flags", lambda: {"avx2"})
    with pytest.raises(UserError, match="int8 needs a processor with VNNI"):
        use_int8(nn.Module(), CPU)


@needs_vnni
def test_a_vocoders_sound(tmp_path):
    """Its own rounding changes the sound by 0.3 % of what another seed does."""
    torch.manual_seed(0)
    config = Config()
    config.waveglow_config.n_flows = 4
    config.waveglow_config.WN_config = dict(n_layers=3, n_channels=128, kernel_size=3)
    model = build_model(config)
    for wn in model.WN:
        nn.init.normal_(wn.end.weight, std=0.05)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "waveglow.pt")
    mel = torch.randn(80, 20) - 5
    plain, fast = Vocoder(tmp_path / "waveglow.pt", CPU), Vocoder(tmp_path / "waveglow.pt", CPU, int8=True)
    spectrogram = build_mel(config)
    sound = lambda vocoder, seed: spectrogram(vocoder.synthesize(mel, seed=seed)[None])[0]  # noqa: E731
    for wn in fast.model.WN:  # all but those that see or make the audio
        is_fast = [isinstance(layer, Int8Conv1d) for layer in (wn.start, *wn.in_layers, *wn.res_skip_layers, wn.end)]
        assert is_fast == [False, False, True, True, True, True, False, False]
    error = mel_l1(sound(plain, 1), sound(fast, 1))
    assert 0 < error < 0.01 * mel_l1(sound(plain, 1), sound(plain, 2))


@needs_vnni
def test_weights_are_rounded_once(tmp_path):
    """From float32 to integers, also where everything else is in half precision."""
    config = Config()
    config.waveglow_config.n_flows = 1
    config.waveglow_config.WN_config = dict(n_layers=2, n_channels=32, kernel_size=3)
    torch.save({"state_dict": build_model(config).state_dict()}, tmp_path / "waveglow.pt")
    in_float32, in_half = (Vocoder(tmp_path / "waveglow.pt", CPU, amp, int8=True) for amp in ("O0", "O1"))
    for one, other in zip(in_float32.model.WN.parameters(), in_half.model.WN.parameters(), strict=True):
        assert torch.equal(one, other)


@needs_vnni
def test_a_processor_that_may_not_use_what_it_has():
    """Without VNNI sums overflow, and nothing else tells."""
    code = "from common.layers.int8 import why_no_int8; from runs import CPU; print(why_no_int8(CPU))"
    environment = dict(os.environ, ONEDNN_MAX_CPU_ISA="AVX2", PYTHONPATH=f"{ROOT}:{ROOT}/test/unit")
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=500)
    assert found.stdout.strip() == "is told not to use VNNI", found.stderr


@pytest.mark.parametrize(
    ("cpuinfo", "flags"),
    [
        ("model name\t: flags\nflags\t\t: fpu avx512_vnni\nflags\t\t: other\n", {"flags", ":", "fpu", "avx512_vnni"}),
        ("flags : avx_vnni", {"flags", ":", "avx_vnni"}),
        ("Features\t: asimd\n", set()),  # not an x86
        (None, set()),
    ],
)
def test_what_the_processor_has_is_read_off_its_first_core(tmp_path, monkeypatch, cpuinfo, flags):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(int8, "Path", lambda path: tmp_path / Path(path).name)
    assert int8._cpu_flags() == flags


@pytest.mark.parametrize(
    ("flags", "sums", "reason"),
    [
        ({"avx512_vnni"}, 64.0, ""),
        ({"avx_vnni", "avx2"}, 64.0, ""),
        ({"avx2", "vnni"}, 64.0, "needs a processor with VNNI"),
        (set(), 64.0, "needs a processor with VNNI"),
        ({"avx_vnni"}, 63.0, "is told not to use VNNI"),
        ({"avx_vnni"}, AttributeError("no onednn"), f"does not run with PyTorch {torch.__version__}"),
        ({"avx_vnni"}, RuntimeError("no kernel"), f"does not run with PyTorch {torch.__version__}"),
        ({"avx_vnni"}, TypeError("other arguments"), f"does not run with PyTorch {torch.__version__}"),
    ],
)
def test_why_it_cannot_be_used(monkeypatch, flags, sums, reason):
    """The sum of 64 ones tells whether the instructions are used."""

    def product(weight, bias):
        assert weight.shape == (64, 64, 1) and (weight == 1).all() and not bias.any()
        if isinstance(sums, Exception):
            raise sums
        return lambda rows, scales, dtype: torch.full((1, 1, 64), sums)

    monkeypatch.setattr(int8, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(int8, "Product", product)
    assert why_no_int8(CPU) == reason
    if reason:
        with pytest.raises(UserError, match=re.escape(f"int8 {reason}: take another precision")):
            use_int8(nn.Module(), CPU)


@pytest.mark.parametrize(("channels", "outputs", "is_fast"), [(16, 16, True), (15, 64, False), (64, 15, False)])
def test_layers_of_16_channels_and_more_run_so(monkeypatch, channels, outputs, is_fast):
    monkeypatch.setattr(int8, "why_no_int8", lambda device: "")
    layer = Conv1d(channels, outputs)
    use_int8(layer, CPU)
    assert type(layer) is (Int8Conv1d if is_fast else Conv1d)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_inputs_become_bytes_by_the_largest_of_each_clip(size, sign):
    """Of either sign: a step is 1/127 of it, and 128 stands for 0. A clip of zeros is zeros."""
    x = torch.zeros(3, 4, 5)
    x[0, 1, 2], x[0, 2, 2], x[0, 3, 3] = sign * size, -sign * size / 2, sign * size / 127
    x[2] = torch.linspace(-size, size / 3, 20).view(4, 5)
    rows, scales = int8.quantize_input(x)
    assert rows.shape == x.shape and rows.dtype == torch.uint8
    assert [scales[0], scales[2]] == [pytest.approx(size / 127)] * 2
    assert (rows[1] == 128).all() and scales[1] > 0
    for clip, bytes_, scale in zip(x, rows, scales, strict=True):
        assert (scale * (bytes_.float() - 128) - clip).abs().max() <= scale * (0.5 + 1e-5)
    assert rows[0, 1, 2] == 128 + sign * 127 and rows[0, 3, 3] == 128 + sign
