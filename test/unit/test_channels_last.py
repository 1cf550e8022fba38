"""Convolutions with the channels last compute what ``torch.nn.functional.conv1d`` does."""

import pytest
import torch
from torch import nn

from common.layers.channels_last import ChannelsLastConv1d, ProductUpsampling, use_channels_last
from common.layers.conv import Conv1d, Upsampling
from reference_curve import REFERENCE, Training, distance
from runs import CPU
from waveglow.model import WaveGlow

LAYERS = [
    dict(in_channels=6, out_channels=10),
    dict(in_channels=6, out_channels=10, bias=False),
    dict(in_channels=5, out_channels=3, kernel_size=5),
    dict(in_channels=8, out_channels=16, kernel_size=3, dilation=4, weight_norm=True),
    dict(in_channels=8, out_channels=16, kernel_size=3, dilation=16),
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def both(layer: dict) -> tuple[Conv1d, Conv1d]:
    torch.manual_seed(0)
    plain = Conv1d(**layer)
    fast = Conv1d(**layer)
    fast.load_state_dict(plain.state_dict())
    use_channels_last(fast, CPU)
    assert type(fast) is ChannelsLastConv1d
    return plain, fast


def fast_layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if type(layer) is ChannelsLastConv1d]


def outcome(layer: Conv1d, x: torch.Tensor, cotangent: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y.float() * cotangent).sum().backward()
    return [y.detach().float(), x.grad.float(), *(parameter.grad.float() for parameter in layer.parameters())]


@pytest.mark.parametrize("frames", [1, 2, 37])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients(layer, batch, frames, dtype):
    plain, fast = both(layer)
    x = torch.randn(batch, layer["in_channels"], frames)
    cotangent = torch.randn(batch, layer["out_channels"], frames)
    expected = outcome(plain, x, cotangent)
    found = outcome(fast.to(dtype), x.to(dtype), cotangent)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < TOLERANCE[dtype] * (1 + one.abs().max())


@pytest.mark.parametrize("layer", LAYERS)
def test_autocast(layer):
    plain, fast = both(layer)
    x, cotangent = torch.randn(2, layer["in_channels"], 20), torch.randn(2, layer["out_channels"], 20)
    expected = outcome(plain, x, cotangent)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
        found = outcome(fast, x, cotangent)
    assert all(parameter.grad.dtype == torch.float32 for parameter in fast.parameters())
    for one, other in zip(expected, found, strict=True):
        assert (one - other).abs().max() < TOLERANCE[torch.bfloat16] * (1 + one.abs().max())


def test_frozen_weights_and_no_gradient():
    plain, fast = both(LAYERS[2])
    x = torch.randn(2, 5, 9)
    fast.requires_grad_(False)
    with_gradient = x.clone().requires_grad_()
    y = fast(with_gradient)
    y.sum().backward()
    assert torch.allclose(y, plain(x), atol=1e-6)
    assert with_gradient.grad.abs().max() > 0
    with torch.no_grad():
        assert torch.allclose(fast(x), plain(x), atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_where_the_channels_are_in_memory(layer):
    """In training and without gradients; then the next layer takes it without a copy."""
    plain, fast = both(layer)
    x = torch.randn(2, layer["in_channels"], 9)
    for tracked in (True, False):
        with torch.set_grad_enabled(tracked):
            assert fast(x).transpose(1, 2).is_contiguous()
            assert plain(x).is_contiguous()


def test_which_layers_run_so():
    layers = [Conv1d(2, 8, kernel_size=31), Conv1d(2, 8, kernel_size=3, dilation=2), Conv1d(8, 8, kernel_size=3)]
    transposed = [Upsampling(2, 8, stride=4), Upsampling(2, 8, stride=3), nn.ConvTranspose1d(2, 3, 8, stride=4)]
    model = nn.ModuleList([*layers, nn.Conv1d(8, 8, 1), *transposed])
    use_channels_last(model, CPU)
    found = [type(layer) for layer in model]
    others = [ProductUpsampling, Upsampling, nn.ConvTranspose1d]
    assert found == [Conv1d, Conv1d, ChannelsLastConv1d, nn.Conv1d, *others]


@pytest.mark.parametrize("reach", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "autocast"])
def test_upsampling(reach, dtype):
    torch.manual_seed(0)
    plain, fast = (Upsampling(5, 6 * reach, stride=6) for _ in range(2))
    fast.load_state_dict(plain.state_dict())
    use_channels_last(fast, CPU)
    assert type(fast) is ProductUpsampling
    x = torch.randn(3, 5, 9)
    cotangent = torch.randn_like(plain(x))
    expected = outcome(plain, x, cotangent)
    if dtype == "bfloat16":
        fast, x = fast.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "autocast"):
        assert fast(x).dtype == (torch.float32 if dtype == "float32" else torch.bfloat16)
        found = outcome(fast, x, cotangent)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        limit = TOLERANCE[torch.float32 if dtype == "float32" else torch.bfloat16]
        assert (one - other).abs().max() < limit * (1 + one.abs().max())


def test_training_is_the_references():
    """The public reference's 20 steps; with the losses all gradients."""
    training = Training("O0", 1.0, CPU)
    assert len(fast_layers(training.model)) > 20
    ours = distance(training.steps(20).losses)
    training = Training("O0", 1.0, CPU)
    for layer in fast_layers(training.model):
        layer.__class__ = Conv1d
    assert max(ours, distance(training.steps(20).losses)) < 1e-6


def test_inference_is_the_plain_models():
    torch.manual_seed(0)
    model = WaveGlow(**REFERENCE["config"]).eval()
    mel = torch.randn(2, REFERENCE["config"]["n_mel_channels"], 7)
    noise = [torch.randn(shape) for shape in model.noise_shapes(2, 7)]
    expected = model.infer(mel, noise=list(noise))
    use_channels_last(model, CPU)
    assert (model.infer(mel, noise=list(noise)) - expected).abs().max() < 1e-6
