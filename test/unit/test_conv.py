"""The convolutions that all models are made of: what they compute, how they begin, and what they become."""

import math
from dataclasses import replace

import pytest
import torch
from on_card import OnCard
from torch import nn
from torch.nn import functional as F

from common.layers.channels_last import ChannelsLastConv1d, ProductUpsampling, use_channels_last
from common.layers.conv import Conv1d, LogAbsDet, Upsampling, composed, windows
from runs import CPU

SHAPES = [dict(kernel_size=1), dict(kernel_size=3), dict(kernel_size=5, dilation=4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_torchs_convolution_of_the_same_length(shape, bias):
    ours, x = Conv1d(6, 10, bias=bias, **shape), torch.randn(2, 6, 11)
    torchs = nn.Conv1d(6, 10, bias=bias, padding="same", **shape)
    torchs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(x), torchs(x), atol=1e-6) and ours(x).shape == (2, 10, 11)
    with pytest.raises(ValueError, match="kernel_size must be odd to keep the length, not 4"):
        Conv1d(6, 10, kernel_size=4)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_weights_and_biases_begin_as_torchs(weight_norm):
    """Evenly spread up to 1 / sqrt(inputs of an output)."""
    torch.manual_seed(0)
    layer = Conv1d(40, 4000, kernel_size=5, weight_norm=weight_norm)
    bound = 1 / math.sqrt(40 * 5)
    for values in (layer.effective_weight(), layer.bias):
        assert 0.99 * bound < values.abs().max() <= bound * (1 + 1e-6)
        assert values.square().mean().sqrt().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_weight_norm_is_that_of_the_paper():
    """Each output's weights have the length g, whatever that of v."""
    layer = Conv1d(4, 6, kernel_size=3, weight_norm=True)
    fresh = layer.effective_weight().detach()
    assert torch.allclose(fresh, layer.weight_v, atol=1e-6)
    with torch.no_grad():
        layer.weight_v *= torch.linspace(1, 5, 6)[:, None, None]
    assert torch.allclose(layer.effective_weight(), fresh, atol=1e-6)
    with torch.no_grad():
        layer.weight_g *= 3
    assert torch.allclose(layer.effective_weight(), 3 * fresh, atol=1e-6)
    with torch.no_grad():
        layer.half().weight_v *= 1000  # whose squares add up to more than half precision holds
    assert layer.effective_weight().dtype == torch.float16
    assert torch.allclose(layer.effective_weight().float(), 3 * fresh, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_normalized_in_float32(monkeypatch, dtype):
    """Whose squares overflow nowhere; some devices add them up in the precision that they are given."""
    layer, seen, norm = Conv1d(4, 6, kernel_size=3, weight_norm=True).to(dtype), [], torch._weight_norm
    monkeypatch.setattr(torch, "_weight_norm", lambda v, g, dim: seen.append((v.dtype, g.dtype)) or norm(v, g, dim))
    assert layer.effective_weight().dtype == dtype and seen == [(torch.float32, torch.float32)]


@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_that_is_put_in_place_of_a_layers_own(bias):
    """It may see another number of channels; nothing of it is trained."""
    layer, weight = Conv1d(4, 6, kernel_size=3, weight_norm=True), torch.randn(8, 7, 3)
    given = torch.randn(8) if bias else None
    layer.replace_kernel(weight, given)
    x = torch.randn(2, 7, 9)
    assert torch.equal(layer(x), F.conv1d(x, weight, given, padding=1))
    assert layer.in_channels == 7 and set(layer.state_dict()) == ({"weight", "bias"} if bias else {"weight"})
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_put_together_are_the_whole(parts):
    layer, x = Conv1d(4, 6, kernel_size=3, weight_norm=True), torch.randn(2, 4, 9)
    found = list(layer.forward_in_parts(x, parts))
    assert [part.shape[1] for part in found] == [6 // parts] * parts
    assert torch.allclose(torch.cat(found, dim=1), layer(x), atol=1e-6)


def test_a_card_makes_all_parts_at_once(monkeypatch):
    """Launching a convolution for each takes longer than computing them."""
    layer, x, calls = Conv1d(4, 6, kernel_size=3), torch.randn(2, 4, 9), []
    convolve = layer.convolve
    monkeypatch.setattr(layer, "convolve", lambda *given: calls.append(given[1].shape) or convolve(*given))
    for given, shapes in ((x, [(2, 4, 3)] * 3), (x.as_subclass(OnCard), [(6, 4, 3)])):
        calls.clear()
        parts = list(layer.forward_in_parts(given, 3))
        assert [part.shape for part in parts] == [(2, 2, 9)] * 3 and calls == shapes
        assert torch.allclose(torch.cat(parts, dim=1), layer(x), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [0, 3])
def test_windows_are_what_each_output_sees(shape, padding):
    layer, x = Conv1d(3, 5, bias=False, **shape), torch.randn(2, 3, 8)
    seen = windows(x.transpose(1, 2), layer.kernel_size, layer.dilation, padding)
    padded = F.pad(x, (layer.padding, layer.padding), value=padding)
    expected = F.conv1d(padded, layer.weight, dilation=layer.dilation)
    assert torch.allclose(seen @ layer.weight.transpose(1, 2).flatten(1).t(), expected.transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_two_layers_composed_do_what_both_do(autocast):
    """Edges included, where the outer one sees zeros and not the bias of the inner one."""
    inner, outer, x = Conv1d(3, 4), Conv1d(4, 5, kernel_size=3, dilation=2), torch.randn(2, 3, 9)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        kernel = composed(outer.weight, *inner.kernel())
    assert kernel.shape == (5, 4, 3) and kernel.dtype == torch.float32
    found = outer.convolve(F.pad(x, (0, 0, 0, 1), value=1), kernel, outer.bias)
    assert torch.allclose(found, outer(inner(x)), atol=1e-5)


def test_the_log_determinant_is_of_either_sign_and_in_float32():
    for matrix in (torch.diag(torch.tensor([2.0, -3.0])), torch.tensor([[0.0, 6.0], [1.0, 0.0]])):
        assert LogAbsDet()(matrix).item() == pytest.approx(math.log(6))
        for half in (matrix.bfloat16(), matrix.half()):  # for which there is no determinant
            found = LogAbsDet()(half)
            assert found.dtype == torch.float32 and found.item() == pytest.approx(math.log(6))


@pytest.mark.parametrize(("kernel_size", "reach"), [(16, 1), (32, 2), (64, 4), (24, 0), (17, 0)])
def test_how_many_frames_a_sample_depends_on(kernel_size, reach):
    assert Upsampling(2, kernel_size, 16).reach == reach


def test_an_upsampling_in_half_precision_is_computed_in_float32():
    layer, x = Upsampling(2, 32, 16), torch.randn(1, 2, 5)
    plain = layer(x)
    assert torch.equal(plain, nn.functional.conv_transpose1d(x, layer.weight, layer.bias, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain)
    half = layer.bfloat16()(x.bfloat16())
    exact = nn.functional.conv_transpose1d(x.bfloat16().float(), layer.weight.float(), layer.bias.float(), 16)
    assert half.dtype == torch.bfloat16 and torch.equal(half, exact.bfloat16())


def test_layers_change_places_on_cpus_alone():
    """Where it pays: wide convolutions, and upsamplings of whole frames."""

    def layers(device):
        model = nn.ModuleList([Conv1d(4, 4, 5), Conv1d(5, 4, 5), Upsampling(2, 32, 16), Upsampling(2, 24, 16)])
        use_channels_last(model, device)
        return [type(layer) for layer in model]

    assert layers(CPU) == [Conv1d, ChannelsLastConv1d, ProductUpsampling, Upsampling]
    assert layers(replace(CPU, type="cuda")) == [Conv1d, Conv1d, Upsampling, Upsampling]
