"""The NPU patch: the same numbers, the same checkpoints, other operators."""

from dataclasses import replace

import pytest
import torch

from common import npu
from common.config import NpuConfig
from common.device import cann_version, pick_device
from common.npu import Conv1dAsConv2d, choose, patch_for_npu
from common.program import UserError
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow

CPU = pick_device("cpu")
ALL = NpuConfig("on", "on", "on")
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
    assert (z - reference["z"]).abs().max() < 1e-4 * reference["z"].abs().max()
    loss = WaveGlowLoss()(output)
    assert loss.item() == pytest.approx(reference["loss"][1.0], rel=1e-4)
    loss.backward()
    for name, parameter in patched.named_parameters():
        expected = reference["grads"][name]
        assert (parameter.grad - expected).abs().max() < 1e-3 * expected.abs().max(), name
    expected = reference["infer"]
    audio = patched.infer(reference["mel"], expected["sigma"], expected["noise"])
    assert (audio - expected["audio"]).abs().max() < 1e-4 * expected["audio"].abs().max()


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


def test_what_auto_chooses(monkeypatch):
    for version, convolutions in (((5, 0), True), ((7, 3), True), (None, True), ((8, 0), False), ((8, 2), False)):
        monkeypatch.setattr(npu, "cann_version", lambda version=version: version)
        wanted, why = choose(NpuConfig(), NPU)
        assert wanted["conv1d_as_conv2d"] == wanted["conv_transpose_on_cpu"] == convolutions
        assert wanted["logdet_on_cpu"]
        assert "CANN" in why
    assert not any(choose(NpuConfig(), CPU)[0].values())
    assert choose(NpuConfig(conv1d_as_conv2d="off"), NPU)[0] == {
        "conv1d_as_conv2d": False, "conv_transpose_on_cpu": False, "logdet_on_cpu": True,
    }  # fmt: skip
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


def test_weight_norm_can_be_removed_from_a_patched_model(models, reference):
    models[1].remove_weight_norm()
    assert isinstance(models[1].WN[0].start, Conv1dAsConv2d)
    expected = reference["infer"]
    audio = models[1].infer(reference["mel"], expected["sigma"], expected["noise"])
    assert (audio - expected["audio"]).abs().max() < 1e-4 * expected["audio"].abs().max()
