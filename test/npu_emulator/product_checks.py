"""The product's parts on the emulated NPU, in one process; test/unit/test_npu_emulator.py runs them."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
import torch_npu
from torch_npu import emulator

from common.adam import has_foreach, make_adam
from common.config import NpuConfig
from common.layers.npu import patch_for_npu
from common.precision import ApexPrecision, Precision
from common.training.averaging import WeightAverage
from common.training.loop import clip_gradients
from reference_curve import REFERENCE, TOLERANCE, Training, distance
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow

pytest_plugins = ["check_fixtures"]
pytestmark = pytest.mark.usefixtures("device")

PARTS = ("conv1d_as_conv2d", "conv_transpose_on_cpu", "conv_transpose_as_product", "logdet_on_cpu")
OFF = NpuConfig(**dict.fromkeys(PARTS, "off"))
ON_THE_HOST = {
    "conv1d", "conv1d_backward", "conv_transpose1d", "conv_transpose1d_backward", "_linalg_slogdet",
    "linalg_lu_solve",
}  # fmt: skip
"What a patched WaveGlow does not run on the device, and an unpatched one does."


def step(switches: NpuConfig, device) -> WaveGlow:
    """Forward, backward, synthesis with the reference's model, patched as the switches say."""
    model = WaveGlow(**REFERENCE["config"]).to(device.torch_device)
    patch_for_npu(model, switches, device)
    mel, audio = (tensor.to(device.torch_device) for tensor in REFERENCE["training"]["batches"][0])
    WaveGlowLoss()(model(mel, audio)).backward()
    model.infer(mel)
    return model


# ---- the patch ----


def test_what_runs_on_the_device(device):
    """Refusing nothing: an unpatched model would run it all there, a patched one does not."""
    with emulator.refusing(()):
        for switches, found in ((OFF, ON_THE_HOST), (NpuConfig(), set())):
            emulator.reset()
            step(switches, device)
            counts = emulator.operator_counts()
            assert counts.keys() & emulator.REFUSED == found
        assert counts["conv2d"] and counts["conv2d_backward"]


@pytest.mark.parametrize("part", ["conv1d_as_conv2d", "conv_transpose_on_cpu", "logdet_on_cpu"])
def test_each_part_of_the_patch_is_needed(device, part):
    refused = {"conv1d_as_conv2d": "conv1d", "conv_transpose_on_cpu": "conv_transpose1d", "logdet_on_cpu": "slogdet"}
    with pytest.raises(NotImplementedError, match=f"no (operator|kernel for) 'aten::_?(linalg_)?{refused[part]}'"):
        step(replace(NpuConfig(conv_transpose_as_product="off"), **{part: "off"}), device)


def test_a_native_transposed_convolution_runs_in_float32(device):
    """At every precision, and to the same numbers."""
    with emulator.refusing(()):
        for level in ("O0", "O1", "O2"):
            emulator.reset()
            on_host, native = (
                Training(level, 128.0, device, switches=switches).loss().item()
                for switches in (NpuConfig(), NpuConfig(conv_transpose_on_cpu="off", conv_transpose_as_product="off"))
            )
            assert emulator.operator_counts()["conv_transpose1d"] == 1
            assert native == on_host


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_as_a_product_the_upsampling_stays_on_the_card(device, level):
    """And a training with it follows the one with the detour."""
    on_host, product = (
        Training(level, 128.0, device, switches=NpuConfig(conv_transpose_on_cpu=value)) for value in ("on", "off")
    )
    for training, crosses in ((on_host, True), (product, False)):
        before = emulator.copies().device_to_host
        y = training.model.upsample(torch.ones(1, 6, 3, device="npu", dtype=training.precision.input_dtype))
        assert (emulator.copies().device_to_host > before) == crosses and y.is_npu
        training.steps(5)
    assert product.losses == pytest.approx(on_host.losses, abs=1e-6 if level == "O0" else TOLERANCE[torch.float16])


def test_operators_are_not_compiled_on_line_unless_asked(device):
    for value, expected in (("on", True), ("off", False), (NpuConfig().jit_compile, False)):
        torch.npu.set_compile_mode(not expected)
        patch_for_npu(torch.nn.Identity(), NpuConfig(jit_compile=value), device)
        assert torch.npu.jit_compiles == expected
        patch_for_npu(torch.nn.Identity(), NpuConfig(jit_compile="auto"), device)
        assert torch.npu.jit_compiles == expected


def test_the_inverses_are_made_once_and_on_the_host(device):
    """The emulated card refuses to invert; a fused model does not even copy."""
    model = WaveGlow(**REFERENCE["config"])
    model.load_state_dict(REFERENCE["state_dict"])
    patch_for_npu(model, NpuConfig(conv_transpose_on_cpu="off"), device)
    model.to(device.torch_device)
    mel, expected = REFERENCE["mel"].to(device.torch_device), REFERENCE["infer"]
    noise = [each.to(device.torch_device) for each in expected["noise"]]
    for fused in (False, True):
        if fused:
            model.fuse()
        before = emulator.copies().device_to_host
        audio = model.infer(mel, expected["sigma"], noise).cpu()
        assert emulator.copies().device_to_host - before == 1 + (0 if fused else len(model.convinv))
        assert (audio - expected["audio"]).abs().max() < 1e-5 * expected["audio"].abs().max()


# ---- precision and optimizer ----


class Foreach(TorchDispatchMode):
    """Notes the operators on lists of tensors."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        if name.startswith("_foreach"):
            self.seen.add(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("card", "has"), [("Ascend910A", False), ("Ascend910B3", True), ("Ascend910_9391", True)])
def test_operators_on_lists_run_where_torch_npu_has_them(device, monkeypatch, card, has):
    monkeypatch.setattr(torch.npu, "get_device_name", lambda device=None: card)
    monkeypatch.delattr(torch_npu.optim, "NpuFusedAdam")
    assert has_foreach(device) == has
    training = Training("O0", 1.0, device)
    average = WeightAverage(0.5, training.model, training.precision)
    training.step()
    norms = []
    with Foreach() as foreach:
        training.optimizer.step()
        norms += [clip_gradients(training.precision.master_params, limit, device) for limit in (0.0, 1e9)]
        average.update(1)
    assert bool(foreach.seen) == has
    assert norms[0].item() == pytest.approx(norms[1].item())


@pytest.mark.parametrize(
    ("level", "loss_scale"),
    [
        ("O0", 128.0),
        ("O1", "dynamic"),
        ("O2", 128.0),
        pytest.param("O0", "dynamic", marks=pytest.mark.slow),
        pytest.param("O1", 128.0, marks=pytest.mark.slow),
        pytest.param("O2", "dynamic", marks=pytest.mark.slow),
    ],
)
def test_the_references_curve(device, level, loss_scale):
    """20 steps of float32, and of float16 to the tolerance stated there."""
    training = Training(level, loss_scale, device).steps(20)
    assert type(training.optimizer) is torch_npu.optim.NpuFusedAdam
    assert distance(training.losses) < (1e-6 if level == "O0" else TOLERANCE[torch.float16])
    assert all(p.dtype == (torch.float16 if level == "O2" else torch.float32) for p in training.model.parameters())


def test_o2_by_apex(device, apex, caplog):
    by_apex, ours = Training("O2", 128.0, device), Training("O2", 128.0, device, Precision)
    assert type(by_apex.precision) is ApexPrecision
    assert "precision: O2 by apex" in caplog.text
    assert "optimizer: NpuFusedAdam of apex.optimizers" in caplog.text
    by_apex.steps(8), ours.steps(8)
    # the two Adams round differently
    assert by_apex.losses == pytest.approx(ours.losses, abs=1e-4)


@pytest.mark.parametrize("saturates", [False, True])
def test_an_overflow_on_the_device_is_skipped(device, saturates):
    """Whether it shows as inf or only in the card's flag; afterwards there is no false alarm."""
    with emulator.saturating(saturates):
        check_overflow(Training("O2", "dynamic", device))


def check_overflow(training):
    training.step()
    before = copy.deepcopy(training.precision.model_state(training.model))
    training.precision.load_state_dict({"scale": 2.0**24, "good_steps": 0})
    assert not training.step()
    assert training.precision.scale == 2.0**23
    after = training.precision.model_state(training.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    while not training.step():
        assert training.precision.scale >= 2.0**10
    good = [training.step() for _ in range(20 - len(training.losses))]
    assert all(good) and distance(training.losses) < TOLERANCE[torch.float16]


def test_the_adam_is_said(device, monkeypatch, caplog):
    def weight(**options):
        param = torch.nn.Parameter(torch.ones(3, device=device.torch_device))
        optimizer = make_adam([param], 0.1, device, **options)
        param.grad = torch.zeros(3, device=device.torch_device)
        optimizer.step()
        return type(optimizer), param[0].item()

    fused = weight(weight_decay=1e-6)
    assert "optimizer: NpuFusedAdam of torch_npu.optim" in caplog.text
    assert weight()[1] == 1
    monkeypatch.delattr(torch_npu.optim, "NpuFusedAdam")
    plain = weight(weight_decay=1e-6)
    assert "torch's plain Adam, not NpuFusedAdam of torch_npu.optim (module" in caplog.text
    weight(under_apex=True)
    assert "torch's plain Adam, not NpuFusedAdam of apex.optimizers (No module named 'apex')" in caplog.text
    assert fused[0] is not plain[0] and fused[1] == pytest.approx(plain[1]) and fused[1] < 0.95


def test_float32_is_not_rounded_to_hf32(device, monkeypatch):
    """Only O0 promises float32."""
    for level, allowed in (("O2", True), ("O0", False)):
        for kind in (torch.npu.conv, torch.npu.matmul):
            monkeypatch.setattr(kind, "allow_hf32", True)
        Training(level, 128.0, device)
        assert torch.npu.conv.allow_hf32 == torch.npu.matmul.allow_hf32 == allowed
