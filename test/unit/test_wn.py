"""The network of a coupling: its layers, how they begin, and what they add up to in any precision."""

import pytest
import torch
from torch.nn import functional as F

from waveglow.conditioning import GroupRate
from waveglow.wn import WN


def network(n_layers=3):
    """Of which every layer counts."""
    torch.manual_seed(0)
    wn = WN(2, 6, n_layers, n_channels=4, kernel_size=3)
    torch.nn.init.normal_(wn.end.weight)
    torch.nn.init.normal_(wn.end.bias)
    return wn


def one_after_the_other(wn, audio, mel):
    """As in NVIDIA/waveglow's glow.py, with PyTorch's own convolutions."""
    conv = lambda layer, x, **how: F.conv1d(x, layer.effective_weight(), layer.bias, **how)  # noqa: E731
    hidden, skipped = conv(wn.start, audio), 0
    conditions = conv(wn.cond_layer, mel)
    for i, (layer, res_skip) in enumerate(zip(wn.in_layers, wn.res_skip_layers, strict=True)):
        x = conv(layer, hidden, padding=2**i, dilation=2**i) + conditions[:, 8 * i : 8 * i + 8]
        x = conv(res_skip, torch.tanh(x[:, :4]) * torch.sigmoid(x[:, 4:]))
        if i < wn.n_layers - 1:
            hidden, x = hidden + x[:, :4], x[:, 4:]
        skipped = skipped + x
    b, log_s = conv(wn.end, skipped).chunk(2, dim=1)
    return log_s, b


@pytest.mark.parametrize("n_layers", [1, 2, 4])
@pytest.mark.parametrize("fused", [False, True])
def test_layers_that_are_merged_do_what_they_do_one_after_the_other(n_layers, fused):
    wn, audio, mel = network(n_layers), torch.randn(2, 2, 20), torch.randn(2, 6, 20)
    expected = one_after_the_other(wn, audio, mel)
    if fused:
        wn.fuse()
        wn.fuse()  # twice is once
    for found in (wn(audio, GroupRate(mel)), wn.at_group_rate(audio, mel)):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == audio.shape and torch.allclose(ours, theirs, atol=1e-5)


def test_a_fresh_coupling_changes_nothing():
    wn = WN(2, 6, n_layers=3, n_channels=4, kernel_size=3)
    for part in wn(torch.randn(2, 2, 20), GroupRate(torch.randn(2, 6, 20))):
        assert not part.any()


@pytest.mark.parametrize("fused", [False, True])
def test_what_layers_skip_is_added_up_in_float32(fused):
    """Of 256 and four times 1 bfloat16 would keep 256."""
    wn = network(n_layers=5)
    with torch.no_grad():
        for layer in (wn.start, wn.cond_layer, *wn.in_layers, *wn.res_skip_layers):
            layer.weight_g.zero_()
            layer.bias.zero_()
        for i, layer in enumerate(wn.res_skip_layers):
            layer.bias.fill_(1 if i else 256)
        wn.end.weight.zero_()
        wn.end.weight[:, 0] = 1
        wn.end.bias.zero_()
    wn.bfloat16()
    if fused:
        wn.fuse()
    zeros = torch.zeros(1, 2, 20).bfloat16()
    for part in wn(zeros, GroupRate(torch.zeros(1, 6, 20).bfloat16())):
        assert part.dtype == torch.bfloat16 and (part == 260).all()


def test_a_fused_network_keeps_the_merged_kernels_alone():
    """Plain weights, which are not trained; those of the first layer see the audio and a channel of ones."""
    wn = network()
    wn.fuse()
    names = {name.rpartition(".")[2] for name in wn.state_dict()}
    assert names == {"weight", "bias"} and not any(each.requires_grad for each in wn.parameters())
    assert [layer.weight.shape[1] for layer in wn.in_layers] == [3, 4, 4]
    assert [len(layer.weight) for layer in wn.res_skip_layers] == [4 + 4, 4 + 4, 4]
    wn.round_kernels(torch.bfloat16)
    kinds = {name: each.dtype for name, each in wn.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {
        "start.weight", "start.bias", "end.weight", "end.bias"
    }  # fmt: skip
