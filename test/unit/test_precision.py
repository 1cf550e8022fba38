"""O1, O2 and the loss scale, in float16 (on the CPU here, as on NPU and CUDA cards) and bfloat16."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common import precision
from common.checkpoints import native
from common.device import pick_device
from common.precision import LARGEST_DYNAMIC_SCALE, Precision
from common.training import main
from conftest import toy_config
from reference_curve import TOLERANCE, Training, distance
from runs import make_run, needs_float16, start, weights

CPU = pick_device("cpu")
FLOAT16 = replace(CPU, half=torch.float16)


@pytest.mark.parametrize(
    ("level", "kind", "expected"),
    [
        ("O0", "cuda", ["exact"]), ("O0", "cpu", ["exact"]), ("O1", "cuda", []), ("O2", "cuda", []),
        ("TF32", "cuda", ["rounded"]), ("TF32", "cpu", ["exact"]), ("TF32", "npu", ["exact"]),
    ],
)  # fmt: skip
def test_products_are_rounded_by_level_tf32_on_cuda_cards_alone(monkeypatch, level, kind, expected):
    did = []
    monkeypatch.setattr(precision, "use_exact_float32", lambda device: did.append("exact"))
    monkeypatch.setattr(precision, "use_tf32", lambda device: did.append("rounded"))
    device = replace(FLOAT16, type=kind)
    made = Precision(level, "dynamic", device, torch.nn.Linear(1, 1))
    assert did == expected
    half = level in ("O1", "O2")
    assert (made.scale, made.dynamic) == ((2.0**16, True) if half else (1.0, False))


def setup(level, loss_scale):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    precision = Precision(level, loss_scale, FLOAT16, model)
    return model, precision, torch.optim.SGD(precision.master_params, lr=0.1)


def step(model, precision, optimizer, factor=1.0):
    """One step on a fixed input; whether it was finite."""
    x = torch.linspace(-1, 1, 12).view(3, 4).to(precision.input_dtype)
    precision.start_step(optimizer)
    with precision.autocast():
        loss = (model(x).float() ** 2).mean() * factor
    precision.backward(loss)
    precision.unscale_gradients()
    finite = all(bool(torch.isfinite(p.grad).all()) for p in precision.master_params)
    if finite:
        optimizer.step()
    precision.finish_step(finite)
    return finite


@needs_float16
def test_o2_keeps_a_half_model_and_float32_masters():
    model, precision, optimizer = setup("O2", 128.0)
    assert all(p.dtype == torch.float16 for p in model.parameters())
    assert all(p.dtype == torch.float32 for p in precision.master_params)
    assert step(model, precision, optimizer)
    for param, master in zip(model.parameters(), precision.master_params, strict=True):
        assert torch.equal(param, master.half())


@needs_float16
@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("loss_scale", [1.0, 128.0, "dynamic"])
def test_the_loss_scale_does_not_change_the_step(level, loss_scale):
    exact = setup("O0", "dynamic")
    half = setup(level, loss_scale)
    for _ in range(5):
        assert step(*exact)
        while not step(*half):  # a dynamic scale may first have to come down
            assert loss_scale == "dynamic"
    for expected, actual in zip(exact[1].master_params, half[1].master_params, strict=True):
        assert (expected - actual).abs().max() < 2e-4


@needs_float16
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_an_overflow_is_left_out_and_halves_a_dynamic_scale(level):
    model, precision, optimizer = setup(level, "dynamic")
    before = [p.detach().clone() for p in precision.master_params]
    scale = precision.scale
    assert not step(model, precision, optimizer, factor=1e6)
    assert precision.scale == scale / 2
    assert all(torch.equal(p, b) for p, b in zip(precision.master_params, before, strict=True))


@needs_float16
def test_an_overflow_leaves_a_static_scale():
    model, precision, optimizer = setup("O2", 128.0)
    assert not step(model, precision, optimizer, factor=1e6)
    assert precision.scale == 128.0


def test_a_dynamic_scale_grows_again(monkeypatch):
    monkeypatch.setattr("common.precision.GROWTH_INTERVAL", 3)
    _, precision, _ = setup("O1", "dynamic")
    scale = precision.scale
    for finite in (True, True, False, True, True, True):
        precision.finish_step(finite)
    assert precision.scale == scale
    assert precision.state_dict() == {"scale": scale, "good_steps": 3}


def test_a_dynamic_scale_has_an_end(monkeypatch):
    monkeypatch.setattr("common.precision.GROWTH_INTERVAL", 1)
    _, precision, _ = setup("O1", "dynamic")
    for _ in range(20):
        precision.finish_step(True)
    assert precision.scale == LARGEST_DYNAMIC_SCALE == 2**24


def test_a_dynamic_scale_begins_and_grows_as_apexs_does():
    _, precision, _ = setup("O1", "dynamic")
    scales = []
    for _ in range(2000):
        scales.append(precision.scale)
        precision.finish_step(True)
    assert set(scales) == {2.0**16}
    assert precision.scale == 2.0**17


def test_a_dynamic_scale_never_falls_below_1():
    _, precision, _ = setup("O1", "dynamic")
    for _ in range(16):
        precision.finish_step(False)
    assert precision.scale == 1
    precision.finish_step(False)
    assert precision.scale == 1


def test_a_dynamic_scale_goes_on_where_it_was(config, tmp_path, monkeypatch):
    """With the good steps behind it, after a resume."""
    monkeypatch.setattr("common.precision.GROWTH_INTERVAL", 3)
    run = make_run(config[1], tmp_path, device=FLOAT16, amp="O1")
    for finite in (False, True, True):
        run.precision.finish_step(finite)
    native.save(run.path(), run.state([]))
    resumed = make_run(config[1], tmp_path, device=FLOAT16, amp="O1")
    resumed.start("auto")
    assert resumed.precision.scale == 2.0**15
    resumed.precision.finish_step(True)
    assert resumed.precision.scale == 2.0**16


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0**20])
def test_a_dynamic_scale_is_the_checkpoints_with_its_good_steps(scale):
    """One below 1, too, as another program may have lowered it."""
    _, precision, _ = setup("O1", "dynamic")
    precision.load_state_dict({"scale": scale, "good_steps": 5})
    assert precision.state_dict() == {"scale": scale, "good_steps": 5}


@needs_float16
def test_weights_go_out_and_in_as_float32():
    model, precision, optimizer = setup("O2", 128.0)
    step(model, precision, optimizer)
    state = {name: tensor.clone() for name, tensor in precision.model_state(model).items()}
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    other, again, _ = setup("O2", 128.0)
    again.load_model_state(other, state)
    assert all(torch.equal(a, b) for a, b in zip(again.master_params, precision.master_params, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


@needs_float16
def test_weights_that_do_not_learn_go_out_and_in_too():
    """They have no master copy; those behind them still find their own."""

    def make(value):
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        model[0].requires_grad_(False)
        for i, parameter in enumerate(model.parameters()):
            torch.nn.init.constant_(parameter, value + i)
        return model, Precision("O2", 128.0, FLOAT16, model)

    model, precision = make(1.0)
    other, again = make(-1.0)
    again.load_model_state(other, precision.model_state(model))
    assert [tensor.flatten()[0].item() for tensor in again.model_state(other).values()] == [1, 2, 3, 4]
    assert [master.flatten()[0].item() for master in again.master_params] == [3, 4]


def test_o0_follows_the_references_curve():
    assert distance(Training("O0", 1.0, CPU).steps(20).losses) < 1e-6


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize(
    ("device", "loss_scale"),
    [
        (CPU, 1.0),
        pytest.param(FLOAT16, 128.0, marks=needs_float16),
        pytest.param(FLOAT16, "dynamic", marks=needs_float16),
    ],
)
def test_half_precision_follows_the_references_curve(level, device, loss_scale):
    assert 1e-5 < distance(Training(level, loss_scale, device).steps(20).losses) < TOLERANCE[device.half]


@pytest.mark.parametrize("half", [pytest.param(torch.float16, marks=needs_float16), torch.bfloat16])
def test_batch_norm_stays_in_float32(half):
    """Weights and statistics finer than half precision holds, in training and in evaluation."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 1), torch.nn.BatchNorm1d(4))
    finer = 1 + 2.0**-20
    torch.nn.init.constant_(model[1].weight, finer)
    precision = Precision("O2", 1.0, replace(CPU, half=half), model)
    norm, x = model[1], torch.randn(2, 3, 9).to(half)
    assert model[0].weight.dtype == half and norm.weight[0] == finer
    model(x).float().sum().backward()
    precision.unscale_gradients()
    precision.finish_step(True)
    assert norm.weight[0] == finer
    assert norm.running_mean.dtype == norm.running_var.dtype == torch.float32
    assert not torch.equal(norm.running_mean, norm.running_mean.to(half))
    assert model(x).dtype == model.eval()(x).dtype == half
    assert precision.model_state(model)["1.weight"][0] == finer


@needs_float16
@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_the_summed_log_determinant_never_goes_through_float16(level):
    """It is beyond float16's 65504 before any loss scale; it and its gradients are float32's all the same."""
    outcomes = []
    for training in (Training(level, 128.0, FLOAT16), Training("O0", 1.0, CPU)):
        precision, flows = training.precision, training.model.convinv
        for flow in flows:
            flow.conv.weight.data *= 8
        dtype = precision.input_dtype
        with precision.autocast():
            log_dets = training.model(torch.zeros(16, 6, 16, dtype=dtype), torch.zeros(16, 4096, dtype=dtype))[2]
        precision.backward(-sum(log_dets) / (16 * 4096))
        precision.unscale_gradients()
        assert all(log_det.dtype == torch.float32 and log_det > 1.5 * 65504 for log_det in log_dets)
        gradients = [param.grad for param in precision.master_params if param.grad is not None]
        assert len(gradients) == len(flows)
        outcomes.append([*torch.stack(log_dets).detach(), *gradients])
    for ours, theirs in zip(*outcomes, strict=True):
        assert (ours - theirs).abs().max() <= 2e-3 * theirs.abs().max()


@needs_float16
def test_an_overflow_that_saturates_is_asked_of_the_card(monkeypatch):
    """An Ascend 910A gives the largest number in the place of inf and raises a flag."""
    card = SimpleNamespace(raised=True)
    card.utils = SimpleNamespace(
        is_support_inf_nan=lambda: False,
        clear_npu_overflow_flag=lambda: setattr(card, "raised", False),
        get_npu_overflow_flag=lambda: card.raised,
    )
    monkeypatch.setattr(torch, "npu", card, raising=False)
    for loss_scale, asked in (("dynamic", True), (128.0, False)):
        precision = Precision("O2", loss_scale, replace(FLOAT16, type="npu"), torch.nn.Linear(1, 1))
        card.raised = True
        precision.start_step(torch.optim.SGD(precision.master_params))
        assert precision.unscale_gradients() is False or not asked
        card.raised = True
        assert precision.unscale_gradients() == asked


@needs_float16
@pytest.mark.parametrize("kind", ["npu", "cpu"])
def test_a_card_that_shows_an_overflow_is_asked_for_nothing(monkeypatch, kind):
    """As later NPUs do, and all others: their flag may say what it wants, and need not be there."""
    card = SimpleNamespace(utils=SimpleNamespace(is_support_inf_nan=lambda: True))
    monkeypatch.setattr(torch, "npu", card, raising=False)
    precision = Precision("O2", "dynamic", replace(FLOAT16, type=kind), torch.nn.Linear(1, 1))
    precision.start_step(torch.optim.SGD(precision.master_params))
    assert not precision.unscale_gradients()


def test_such_an_overflow_leaves_out_the_step(config, corpus, tmp_path, caplog):
    """In the training loop."""

    def hide(task, run):
        run.precision.unscale_gradients = lambda: True

    before = weights(make_run(config[1], tmp_path))
    run, _ = start(config[1], corpus, tmp_path / "out", max_steps=2, spoil=hide)
    assert torch.equal(weights(run), before)
    assert "step skipped (2 in a row)" in caplog.text


@pytest.mark.parametrize(
    ("level", "is_slow", "warned"),
    [("O1", True, True), ("O1", False, False), ("O0", True, False), ("TF32", True, False)],
)
def test_a_processor_without_bfloat16_is_said_to_be_slow_in_it(tmp_path, monkeypatch, caplog, level, is_slow, warned):
    monkeypatch.setattr(main, "is_slow_in_half", lambda device: is_slow)
    make_run(toy_config(), tmp_path, amp=level)
    assert ("--amp=O0" in caplog.text) == warned
