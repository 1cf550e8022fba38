"""The NPU patch: the same numbers, the same checkpoints, other operators."""

from dataclasses import replace

import pytest
import torch

from common import device
from common.config import NpuConfig
from common.device import cann_version, pick_device
from common.layers import npu
from common.layers.conv import Conv1d, Upsampling
from common.layers.npu import Conv1dAsConv2d, Crossings, HostUpsampling, ProductUpsampling, choose, patch_for_npu
from common.program import UserError
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow

CPU = pick_device("cpu")
PARTS = ("conv1d_as_conv2d", "conv_transpose_on_cpu", "conv_transpose_as_product", "logdet_on_cpu")
ALL, ALL_AUTO = NpuConfig(**dict.fromkeys(PARTS, "on") | {"conv_transpose_as_product": "off"}), NpuConfig()
NPU = replace(CPU, type="npu")


@pytest.fixture
def models(reference):
    """The reference's model as it is and patched."""
    plain, patched = WaveGlow(**reference["config"]), WaveGlow(**reference["config"])
    for model in (plain, patched):
        model.load_state_dict(reference["state_dict"])
    patch_for_npu(patched, ALL, CPU)
    return plain, patched


def refuse(*args, **kwargs):
    raise AssertionError("a 1-D convolution")


def test_a_patched_model_gives_the_references_numbers(models, reference, monkeypatch):
    _, patched = models
    monkeypatch.setattr(torch.nn.functional, "conv1d", refuse)
    z, _, _ = output = patched(reference["mel"], reference["audio"])
    assert (z - reference["z"]).abs().max() < 1e-5 * reference["z"].abs().max()
    loss = WaveGlowLoss()(output)
    assert loss.item() == pytest.approx(reference["loss"][1.0], rel=1e-5)
    loss.backward()
    for name, parameter in patched.named_parameters():
        expected = reference["grads"][name]
        assert (parameter.grad - expected).abs().max() < 2e-5 * expected.abs().max(), name
    expected = reference["infer"]
    audio = patched.infer(reference["mel"], expected["sigma"], expected["noise"])
    assert (audio - expected["audio"]).abs().max() < 1e-5 * expected["audio"].abs().max()


def test_without_the_patch_1d_convolutions_are_met(models, reference, monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(torch.nn.functional, "conv1d", refuse)
    with pytest.raises(AssertionError, match="1-D"):
        models[0](reference["mel"], reference["audio"])


def test_checkpoints_are_the_same(models):
    plain, patched = (model.state_dict() for model in models)
    assert list(plain) == list(patched)
    assert all(torch.equal(plain[name], patched[name]) for name in plain)


def test_a_crossing_is_counted_with_its_bytes():
    crossings, tensor = Crossings(), torch.zeros(3, 5, dtype=torch.float64)
    assert crossings.move(tensor, tensor.device) is tensor
    assert crossings == Crossings(0, 0, 0.0, 0.0)
    assert crossings.move(tensor, torch.device("meta")).is_meta
    assert (crossings.count, crossings.bytes, crossings.host_seconds) == (1, 3 * 5 * 8, 0)
    assert 0 < crossings.seconds < 60


def test_nothing_crosses_on_the_cpu(models, reference):
    crossings = models[1].upsample.crossings
    WaveGlowLoss()(models[1](reference["mel"], reference["audio"])).backward()
    assert (crossings.count, crossings.bytes) == (0, 0)


@pytest.mark.parametrize("kind", [HostUpsampling, ProductUpsampling])
@pytest.mark.parametrize("taps", [16, 24, 30, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_upsampling_is_the_same_in_every_way(kind, taps, dtype):
    """Forward and backward, also where the kernel is no multiple of the hop."""
    plain, other = Upsampling(3, taps, 16).to(dtype), Upsampling(3, taps, 16).to(dtype)
    other.load_state_dict(plain.state_dict())
    other.__class__, other.crossings = kind, Crossings()
    x = torch.randn(2, 3, 5, dtype=dtype)
    outcomes = []
    for layer in (plain, other):
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y))
        outcomes.append([y.detach(), inputs.grad, layer.weight.grad, layer.bias.grad])
    tolerance = 1e-5 if kind is HostUpsampling or dtype == torch.float32 else 1e-12
    for one, another in zip(*outcomes, strict=True):
        assert one.shape == another.shape and one.dtype == another.dtype
        assert (one - another).abs().max() <= tolerance * one.abs().max()


def test_what_is_computed_on_the_host_is_timed(models, reference):
    """Forward and backward, for --profile."""
    crossings = models[1].upsample.crossings
    output = models[1](reference["mel"], reference["audio"])
    forward = crossings.host_seconds
    WaveGlowLoss()(output).backward()
    assert 0 < forward < crossings.host_seconds


def chosen(monkeypatch, version, card, config=ALL_AUTO):
    monkeypatch.setattr(npu, "cann_version", lambda: version)
    monkeypatch.setattr(npu, "card_name", lambda device: card)
    return choose(config, NPU)


@pytest.mark.parametrize("card", ["Ascend910A", "Ascend910ProB", "Ascend910PremiumA", "Ascend910B", "Ascend310P3", ""])
def test_auto_patches_all_on_first_generation_cards(monkeypatch, card):
    """A 910B is one: only with a digit after it, 910B1 and on, is it an A2."""
    for version in ((5, 0), (8, 2), None):
        wanted, why = chosen(monkeypatch, version, card)
        assert wanted == dict.fromkeys(PARTS, True) | {"conv_transpose_as_product": False}
        assert card in why and "5.0.3" in why


@pytest.mark.parametrize("card", ["Ascend910B1", "Ascend910B4-1", "Ascend910C", "Ascend910_9391", "Ascend950PR"])
def test_auto_leaves_convolutions_to_new_cards_with_new_cann(monkeypatch, card):
    for version, native in (((8, 0), True), ((9, 1), True), ((7, 3), False), ((5, 0), False), (None, False)):
        wanted, why = chosen(monkeypatch, version, card)
        assert wanted["conv1d_as_conv2d"] == wanted["conv_transpose_on_cpu"] == (not native)
        assert wanted["conv_transpose_as_product"] == native
        assert wanted["logdet_on_cpu"]
        assert card in why and ("unknown" if version is None else f"CANN {version[0]}.{version[1]}") in why


def test_switches_decide_over_auto(monkeypatch):
    assert not any(choose(ALL_AUTO, CPU)[0].values())
    wanted, why = chosen(monkeypatch, (5, 0), "Ascend910A", NpuConfig(conv1d_as_conv2d="off"))
    assert wanted == dict(zip(PARTS, [False, True, False, True]))
    assert why == "as configured: conv1d_as_conv2d; auto: CANN 5.0 on Ascend910A is treated like 5.0.3"
    assert "auto" not in chosen(monkeypatch, (5, 0), "Ascend910A", ALL)[1]
    on_the_card = NpuConfig(conv_transpose_on_cpu="off")
    assert chosen(monkeypatch, (5, 0), "Ascend910A", on_the_card)[0]["conv_transpose_as_product"]
    for card in ("Ascend910A", "Ascend910B3"):  # on every card, whatever auto would take
        for one, other in (PARTS[1:3], PARTS[2:0:-1]):
            wanted, _ = chosen(monkeypatch, (8, 1), card, NpuConfig(**{one: "on"}))
            assert wanted[one] and not wanted[other]
    with pytest.raises(UserError, match="both on, and only one of them can be"):
        NpuConfig(**dict.fromkeys(PARTS[1:3], "on"))
    with pytest.raises(UserError, match="conv1d_as_conv2d is 'yes'"):
        NpuConfig(conv1d_as_conv2d="yes")


@pytest.mark.parametrize(
    ("name", "content", "version"),
    [
        ("version.cfg", "# version: 1.0\nruntime_running_version=[5.0.3.1:5.0.3]\n", (5, 0)),
        ("aarch64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\n", (8, 1)),
        ("x86_64-linux/ascend_nnae_install.info", "package_name=Ascend-cann-nnae\nversion=8.5.0\n", (8, 5)),
        ("version.cfg", "nothing\n", None),
        ("version.cfg", "\udcff\udcfe version=[1.0:8.2]", (8, 2)),  # bytes that are no text
        ("version.cfg/folder", "version=8.2", None),
    ],
)
@pytest.mark.parametrize("variable", ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", None])
def test_the_version_of_cann(tmp_path, monkeypatch, name, content, version, variable):
    for other in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setattr(device, "CANN_ROOT", tmp_path)
    home = tmp_path / "cann"
    home.mkdir()
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_text(content, errors="surrogateescape")
    if variable:
        monkeypatch.setenv(variable, str(home))
    assert cann_version() == version


@pytest.mark.parametrize(
    ("card", "taps", "refused"), [("Ascend910B1", 256, True), ("Ascend910B1", 255, False), ("Ascend910A", 256, False)]
)
def test_an_upsampling_that_cann_does_not_take_is_said_at_the_start(monkeypatch, card, taps, refused):
    """Where CANN's documentation says so: on the first generation it may be tried."""
    monkeypatch.setattr(npu, "card_name", lambda device: card)
    config = NpuConfig(**dict.fromkeys(PARTS, "off"), jit_compile="auto")
    model = torch.nn.Sequential(Upsampling(2, taps, 8))
    if refused:
        with pytest.raises(
            UserError, match="a kernel of 256, to CANN's own operator, which takes at most 255: set conv_"
        ):
            patch_for_npu(model, config, NPU)
    else:
        patch_for_npu(model, config, NPU)
    patch_for_npu(torch.nn.Sequential(Upsampling(2, taps, 8)), replace(config, conv_transpose_as_product="on"), NPU)


def test_a_dilation_that_cann_does_not_take_is_said_at_the_start(monkeypatch, reference):
    monkeypatch.setattr(npu, "card_name", lambda device: "Ascend910A")
    for n_layers, padding in ((8, 128), (9, 256)):
        config = reference["config"] | {"WN_config": reference["config"]["WN_config"] | {"n_layers": n_layers}}
        model = WaveGlow(**config)
        assert model.WN[0].in_layers[-1].padding == padding
        if padding > 255:
            with pytest.raises(UserError, match=r"^WN.0.in_layers.8 pads by 256 on each side, .* fewer n_layers"):
                patch_for_npu(model, NpuConfig(jit_compile="auto"), NPU)
            patch_for_npu(model, NpuConfig(jit_compile="auto"), CPU)
        else:
            patch_for_npu(model, NpuConfig(jit_compile="auto"), NPU)
    patch_for_npu(torch.nn.Sequential(Conv1d(1, 1, 511)), NpuConfig(jit_compile="auto"), NPU)  # the limit itself, 255


def test_the_layers_of_a_patched_model_can_be_fused(models, reference):
    models[1].fuse()
    assert isinstance(models[1].WN[0].start, Conv1dAsConv2d)
    expected = reference["infer"]
    audio = models[1].infer(reference["mel"], expected["sigma"], expected["noise"])
    assert (audio - expected["audio"]).abs().max() < 1e-5 * expected["audio"].abs().max()


def test_the_host_makes_no_gradient_that_nobody_needs(monkeypatch):
    asked, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda y, to, given: asked.append(len(to)) or grad(y, to, given))
    x, weight = torch.randn(3), torch.randn(3, requires_grad=True)
    npu.on_host(Crossings(), torch.mul, x, weight).sum().backward()
    assert asked == [1] and torch.equal(weight.grad, x)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_host_keeps_nothing_for_a_gradient_that_nobody_asks_for(wanted):
    recorded = []
    x = torch.randn(3, requires_grad=True)
    with torch.set_grad_enabled(wanted):
        y = npu.on_host(Crossings(), lambda given: recorded.append(given.requires_grad) or 2 * given, x)
    assert recorded == [wanted] and y.requires_grad == wanted and torch.equal(y, 2 * x)
