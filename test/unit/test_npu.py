"""The NPU patch: the same numbers, the same checkpoints, other operators."""

from dataclasses import replace

import pytest
import torch

from common.config import NpuConfig
from common.device import cann_version, pick_device
from common.layers import npu
from common.layers.npu import Conv1dAsConv2d, choose, patch_for_npu
from common.program import UserError
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow

CPU = pick_device("cpu")
ALL, ALL_AUTO = NpuConfig("on", "on", "on"), NpuConfig()
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


def test_nothing_crosses_on_the_cpu(models, reference):
    crossings = models[1].upsample.crossings
    WaveGlowLoss()(models[1](reference["mel"], reference["audio"])).backward()
    assert (crossings.count, crossings.bytes) == (0, 0)


def chosen(monkeypatch, version, card, config=ALL_AUTO):
    monkeypatch.setattr(npu, "cann_version", lambda: version)
    monkeypatch.setattr(npu, "card_name", lambda device: card)
    return choose(config, NPU)


@pytest.mark.parametrize("card", ["Ascend910A", "Ascend910ProB", "Ascend910PremiumA", "Ascend910B", "Ascend310P3", ""])
def test_auto_patches_all_on_first_generation_cards(monkeypatch, card):
    """A 910B is one: only with a digit after it, 910B1 and on, is it an A2."""
    for version in ((5, 0), (8, 2), None):
        wanted, why = chosen(monkeypatch, version, card)
        assert all(wanted.values())
        assert card in why and "5.0.3" in why


@pytest.mark.parametrize("card", ["Ascend910B1", "Ascend910B4-1", "Ascend910C", "Ascend910_9391", "Ascend950PR"])
def test_auto_leaves_convolutions_to_new_cards_with_new_cann(monkeypatch, card):
    for version, native in (((8, 0), True), ((9, 1), True), ((7, 3), False), ((5, 0), False), (None, False)):
        wanted, why = chosen(monkeypatch, version, card)
        assert wanted["conv1d_as_conv2d"] == wanted["conv_transpose_on_cpu"] == (not native)
        assert wanted["logdet_on_cpu"]
        assert card in why and ("unknown" if version is None else f"CANN {version[0]}.{version[1]}") in why


def test_switches_decide_over_auto(monkeypatch):
    assert not any(choose(ALL_AUTO, CPU)[0].values())
    wanted, why = chosen(monkeypatch, (5, 0), "Ascend910A", NpuConfig(conv1d_as_conv2d="off"))
    assert wanted == {"conv1d_as_conv2d": False, "conv_transpose_on_cpu": True, "logdet_on_cpu": True}
    assert why == "as configured: conv1d_as_conv2d; auto: CANN 5.0 on Ascend910A is treated like 5.0.3"
    assert "auto" not in chosen(monkeypatch, (5, 0), "Ascend910A", ALL)[1]
    with pytest.raises(UserError, match="conv1d_as_conv2d is 'yes'"):
        NpuConfig(conv1d_as_conv2d="yes")


@pytest.mark.parametrize(
    ("name", "content", "version"),
    [
        ("version.cfg", "# version: 1.0\nruntime_running_version=[5.0.3.1:5.0.3]\n", (5, 0)),
        ("aarch64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\n", (8, 1)),
        ("version.cfg", "nothing\n", None),
    ],
)
def test_the_version_of_cann(tmp_path, monkeypatch, name, content, version):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    assert cann_version() == version


def test_the_layers_of_a_patched_model_can_be_fused(models, reference):
    models[1].fuse()
    assert isinstance(models[1].WN[0].start, Conv1dAsConv2d)
    expected = reference["infer"]
    audio = models[1].infer(reference["mel"], expected["sigma"], expected["noise"])
    assert (audio - expected["audio"]).abs().max() < 1e-5 * expected["audio"].abs().max()
