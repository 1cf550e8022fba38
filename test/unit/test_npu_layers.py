"""What the NPU patch puts in the place of layers, what it says and asks of the card, and what goes to the host."""

from dataclasses import replace

import pytest
import torch

from common.config import NpuConfig
from common.device import pick_device
from common.layers import npu
from common.layers.conv import Conv1d, LogAbsDet, Upsampling
from common.layers.npu import Conv1dAsConv2d, Crossings, HostUpsampling, ProductUpsampling, patch_for_npu
from common.program import UserError

CPU = pick_device("cpu")
NPU = replace(CPU, type="npu")
PARTS = ("conv1d_as_conv2d", "conv_transpose_on_cpu", "conv_transpose_as_product", "logdet_on_cpu")


@pytest.mark.parametrize(("setting", "asked"), [("on", [True]), ("off", [False]), ("auto", []), (None, [False])])
@pytest.mark.parametrize("device", [NPU, CPU])
def test_whether_operators_are_compiled_is_asked_of_the_device(monkeypatch, setting, asked, device):
    """auto leaves it to the card; by default they are not."""
    found = []
    monkeypatch.setattr(npu, "set_jit_compile", lambda device, wanted: found.append((device, wanted)))
    monkeypatch.setattr(npu, "card_name", lambda device: "Ascend910A")
    config = NpuConfig(jit_compile=setting) if setting else NpuConfig()
    patch_for_npu(torch.nn.Sequential(Upsampling(2, 32, 16)), config, device)
    assert found == [(device, wanted) for wanted in asked]


@pytest.mark.parametrize(
    ("device", "config", "kinds", "said"),
    [
        (CPU, {}, [Conv1d, Upsampling, LogAbsDet], None),
        (CPU, {"conv1d_as_conv2d": "on"}, [Conv1dAsConv2d, Upsampling, LogAbsDet], "conv1d_as_conv2d (as configured"),
        (CPU, {"logdet_on_cpu": "on"}, [Conv1d, Upsampling, npu.HostLogAbsDet], "logdet_on_cpu (as configured"),
        (CPU, {"conv_transpose_as_product": "on"}, [Conv1d, ProductUpsampling, LogAbsDet], "conv_transpose_as_product"),
        (
            NPU,
            {},
            [Conv1dAsConv2d, HostUpsampling, npu.HostLogAbsDet],
            "conv1d_as_conv2d, conv_transpose_on_cpu, logdet_on_cpu (auto: CANN 5.0 on Ascend910A",
        ),
        (
            NPU,
            {"conv_transpose_on_cpu": "on"},
            [Conv1dAsConv2d, HostUpsampling, npu.HostLogAbsDet],
            "conv1d_as_conv2d, ",
        ),
        (NPU, dict.fromkeys(PARTS, "off"), [Conv1d, npu.Float32Upsampling, LogAbsDet], "nothing (as configured"),
    ],
)
def test_which_layers_are_swapped_and_what_is_said_of_it(monkeypatch, caplog, device, config, kinds, said):
    """Subclasses and PyTorch's own layers stay; those that cross to the host count together."""
    caplog.set_level("INFO")
    monkeypatch.setattr(npu, "cann_version", lambda: (5, 0))
    monkeypatch.setattr(npu, "card_name", lambda device: "Ascend910A")
    monkeypatch.setattr(npu, "set_jit_compile", lambda device, wanted: None)
    layers = [Conv1d(2, 2), Upsampling(2, 32, 16), LogAbsDet(), torch.nn.Conv1d(2, 2, 1)]
    crossings = patch_for_npu(torch.nn.ModuleList(layers), NpuConfig(**config), device)
    assert [type(layer) for layer in layers] == [*kinds, torch.nn.Conv1d]
    assert all(layer.crossings is crossings for layer in layers if hasattr(layer, "crossings"))
    assert [isinstance(layer, HostUpsampling | npu.HostLogAbsDet) for layer in layers] == [
        hasattr(layer, "crossings") for layer in layers
    ]
    assert len(caplog.messages) == (1 if said else 0)
    assert not said or caplog.messages[0].startswith(f"npu patch: {said}")


def test_what_does_not_change_is_taken_to_the_host_once(monkeypatch):
    """Weights are much larger than what is upsampled; while they are trained they go there each time."""
    moved, plain = [], Upsampling(3, 32, 16)
    layer = Upsampling(3, 32, 16)
    layer.load_state_dict(plain.state_dict())
    layer.__class__, layer.crossings = HostUpsampling, Crossings()
    monkeypatch.setattr(Crossings, "move", lambda self, tensor, device: moved.append(tensor.shape) or tensor)
    weight, bias, x = layer.weight.shape, layer.bias.shape, torch.randn(1, 3, 5)
    for trained in (True, False):
        layer.requires_grad_(trained)
        counts = []
        for _ in range(3):
            moved.clear()
            assert torch.equal(layer(x), plain(x))
            counts.append((moved.count(weight), moved.count(bias)))
        assert counts == [(1, 1)] * 3 if trained else counts[1:] == [counts[1]] * 2 and counts[0][0] > counts[1][0]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_what_must_be_float32_is_whatever_the_device_computes_in(kind):
    """Also under autocast, and gives the precision back that it was given."""
    layer = Upsampling(3, 32, 16).to(kind)
    layer.__class__, layer.crossings = HostUpsampling, Crossings()
    x = torch.randn(1, 3, 5).to(kind)
    exact = torch.nn.functional.conv_transpose1d(x.float(), layer.weight.float(), layer.bias.float(), 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), exact.to(kind))
    layer.__class__ = npu.Float32Upsampling  # the same on the device
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), exact.to(kind))
    matrix = torch.diag(torch.tensor([2.0, -3.0])).to(kind)
    determinant = LogAbsDet()
    determinant.__class__, determinant.crossings = npu.HostLogAbsDet, Crossings()
    with torch.autocast("cpu", torch.bfloat16):
        found = determinant(matrix)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(1.7917595)


@pytest.mark.parametrize("name", vars(NpuConfig()))
def test_each_switch_is_auto_on_or_off(name):
    for value in ("auto", "on", "off"):
        assert getattr(NpuConfig(**{name: value}), name) == value
    for value in ("yes", "", "ON", "1"):
        with pytest.raises(UserError, match=f"^npu_config: {name} is '{value}', must be auto, on or off$"):
            NpuConfig(**{name: value})
