"""Between the model and the master weights: gradients go over without the loss scale, weights come back."""

import logging
from dataclasses import replace

import pytest
import torch

from common import precision as precision_module
from common.device import pick_device
from common.precision import Precision, amp_level, convert, make_precision
from runs import needs_float16

CPU = pick_device("cpu")
FLOAT16 = replace(CPU, half=torch.float16)
HALVES = [torch.float16, torch.bfloat16]


def made(level, half=torch.float16, loss_scale=4.0, kind="cpu"):
    """A model whose second layer is not trained, and its precision."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[1].requires_grad_(False)
    return model, Precision(level, loss_scale, replace(CPU, half=half, type=kind), model)


def set_gradients(model, value):
    for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        parameter.grad = torch.full_like(parameter, value + number)


@pytest.mark.parametrize(("half", "scale"), [(torch.float16, 4.0), (torch.bfloat16, 1.0)])
def test_masters_get_the_gradients_of_o2_in_the_memory_of_the_first_ones(half, scale):
    """NpuFusedAdam keeps hold of that. The model's own are given away."""
    model, precision = made("O2", half)
    assert precision.scale == scale and len(precision.master_params) == 4
    places = set()
    for step in range(3):
        set_gradients(model, 8.0 * (step + 1))
        assert precision.unscale_gradients() is False
        found = [master.grad for master in precision.master_params]
        assert [each.unique().tolist() for each in found] == [[(8.0 * (step + 1) + i) / scale] for i in range(4)]
        assert {each.dtype for each in found} == {torch.float32}
        assert all(parameter.grad is None for parameter in model.parameters())
        places.add(tuple(each.data_ptr() for each in found))
    assert len(places) == 1


@pytest.mark.parametrize(("level", "scale"), [("O0", 1.0), ("O1", 4.0)])
def test_without_masters_the_models_own_gradients_lose_the_scale(level, scale):
    model, precision = made(level)
    assert all(a is b for a, b in zip(precision.master_params, precision.model_params, strict=True))
    set_gradients(model, 8.0)
    before = [p.grad for p in precision.model_params]
    precision.unscale_gradients()
    assert all(p.grad is own for p, own in zip(precision.model_params, before, strict=True))
    assert [p.grad.unique().tolist() for p in precision.model_params] == [[(8.0 + i) / scale] for i in range(4)]


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_weight_without_a_gradient_has_none_after_it_either(level):
    model, precision = made(level)
    set_gradients(model, 8.0)
    model[0].bias.grad = None
    precision.unscale_gradients()
    assert [master.grad is None for master in precision.master_params] == [False, True, False, False]
    assert [master.grad.unique().item() for master in precision.master_params if master.grad is not None] == [
        8.0 / 4, 10.0 / 4, 11.0 / 4
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "is_own"), [("npu", True), ("cpu", False)])
def test_on_an_npu_a_gradient_does_not_share_its_memory(kind, is_own):
    """torch_npu's Adam joins the storages of the gradients that it sees first; a view would bring more along."""
    _, precision = made("O1", kind=kind)
    whole = torch.arange(20.0)
    views = [whole[:4].view(2, 2), whole[4:6], whole[6:8].view(1, 2), whole[8:9]]
    for parameter, view in zip(precision.model_params, views, strict=True):
        parameter.grad = view
    precision.unscale_gradients()
    for parameter, values in zip(precision.model_params, ([0, 1, 2, 3], [4, 5], [6, 7], [8]), strict=True):
        assert parameter.grad.flatten().tolist() == [value / 4 for value in values]
        assert (parameter.grad.untyped_storage().nbytes() == parameter.grad.nbytes) == is_own
    first = [parameter.grad for parameter in precision.model_params]
    precision.unscale_gradients()
    assert all(parameter.grad is own for parameter, own in zip(precision.model_params, first, strict=True))


@pytest.mark.parametrize("half", HALVES)
def test_the_model_gets_the_masters_rounded_after_a_step_and_not_after_one_left_out(half):
    model, precision = made("O2", half)
    fine = 1 + 2.0**-12
    fixed = model[1].weight.clone()
    with torch.no_grad():
        for master in precision.master_params:
            master.fill_(fine)
    before = [p.clone() for p in precision.model_params]
    precision.finish_step(False)
    assert all(torch.equal(p, b) for p, b in zip(precision.model_params, before, strict=True))
    precision.finish_step(True)
    assert all((p == torch.tensor(fine).to(half)).all() for p in precision.model_params)
    assert all((master == fine).all() for master in precision.master_params)
    assert torch.equal(model[1].weight, fixed)


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_the_state_of_the_model_is_the_masters_and_the_rest_in_float32(level):
    """Not copied, and without their gradients."""
    model, precision = made(level)
    state = precision.model_state(model)
    assert list(state) == list(model.state_dict())
    assert all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in state.values())
    learned = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [state[name].data_ptr() for name in learned] == [master.data_ptr() for master in precision.master_params]
    wanted = {name: torch.full_like(tensor, 1 + 2.0**-12) for name, tensor in state.items()}
    precision.load_model_state(model, wanted)
    assert all(torch.equal(precision.model_state(model)[name], wanted[name]) for name in learned)
    assert all(torch.equal(t, wanted[name].to(t.dtype)) for name, t in model.state_dict().items())


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_adam_works_on_the_masters_at_the_configured_settings(level):
    _, precision = made(level)
    (group,) = precision.make_optimizer(0.25, 0.5).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5)
    assert all(a is b for a, b in zip(group["params"], precision.master_params, strict=True))
    assert precision.make_optimizer(0.25).param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("level", "half", "inputs", "is_cast"),
    [
        ("O0", torch.float16, torch.float32, False),
        ("O1", torch.bfloat16, torch.float32, True),
        pytest.param("O1", torch.float16, torch.float32, True, marks=needs_float16),
        ("O2", torch.float16, torch.float16, False),
        ("O2", torch.bfloat16, torch.bfloat16, False),
    ],
)
def test_inputs_and_operators_are_of_the_types_of_the_level(level, half, inputs, is_cast):
    _, precision = made(level, half)
    assert precision.input_dtype == inputs
    with precision.autocast():
        product = torch.ones(1, 2) @ torch.ones(2, 1)
    assert product.dtype == (half if is_cast else torch.float32)


@pytest.mark.parametrize(
    ("level", "half", "loss_scale", "scale", "is_dynamic"),
    [
        ("O0", torch.float16, "dynamic", 1.0, False),
        ("O0", torch.float16, 128.0, 1.0, False),
        ("O1", torch.float16, "dynamic", 65536.0, True),
        ("O2", torch.float16, "dynamic", 65536.0, True),
        ("O1", torch.float16, "64", 64.0, False),
        ("O2", torch.float16, 0.5, 0.5, False),
        ("O1", torch.bfloat16, "dynamic", 1.0, False),
        ("O2", torch.bfloat16, 128.0, 1.0, False),
    ],
)
def test_a_loss_is_scaled_where_gradients_are_float16(level, half, loss_scale, scale, is_dynamic):
    _, precision = made(level, half, loss_scale)
    assert (precision.scale, precision.dynamic) == (scale, is_dynamic)
    assert precision.state_dict() == {"scale": scale, "good_steps": 0}
    weight = torch.nn.Parameter(torch.ones(1))
    precision.backward(weight.sum() * 3)
    precision.backward(weight.sum() * 3, last=False)
    assert weight.grad.item() == 6 * scale
    precision.load_state_dict({"scale": 2.0, "good_steps": 7})
    assert precision.state_dict() == (
        {"scale": 2.0, "good_steps": 7} if is_dynamic else {"scale": scale, "good_steps": 0}
    )


@pytest.mark.parametrize(("loss_scale", "is_asked"), [("dynamic", True), (128.0, False)])
def test_a_card_is_asked_for_overflows_only_where_the_scale_can_give_way(monkeypatch, loss_scale, is_asked):
    asked = []
    monkeypatch.setattr(precision_module, "clear_overflow_flag", lambda device: asked.append("clear"))
    monkeypatch.setattr(precision_module, "overflow_flag", lambda device: asked.append("look") or True)
    _, precision = made("O2", loss_scale=loss_scale)
    precision.start_step(torch.optim.SGD(precision.master_params))
    assert precision.unscale_gradients() is is_asked
    assert asked == (["clear", "look"] if is_asked else [])


@pytest.mark.parametrize(("level", "is_exact"), [("O0", True), ("O1", False), ("O2", False)])
def test_float32_is_exact_where_it_is_all_there_is(monkeypatch, level, is_exact):
    asked = []
    monkeypatch.setattr(precision_module, "use_exact_float32", asked.append)
    _, precision = made(level)
    assert asked == ([precision.device] if is_exact else [])


@pytest.mark.parametrize(
    ("level", "half", "loss_scale", "said"),
    [
        ("O0", torch.float16, "dynamic", "precision: O0, loss scale 1"),
        ("O1", torch.float16, "dynamic", "precision: O1, loss scale 65536 (dynamic)"),
        ("O2", torch.float16, 128.0, "precision: O2, loss scale 128"),
        ("O2", torch.bfloat16, "dynamic", "precision: O2, loss scale 1"),
    ],
)
def test_the_precision_is_said(caplog, level, half, loss_scale, said):
    caplog.set_level(logging.INFO)
    made = make_precision(level, loss_scale, replace(CPU, half=half), torch.nn.Linear(1, 1))
    assert type(made) is Precision and caplog.messages == [said]


def test_the_level_is_the_one_asked_for_or_nvidias_fp16_run_on_this_device():
    device = replace(CPU, amp="O2")
    table = {("O1", True): "O1", ("O0", True): "O0", ("O1", False): "O1", ("", True): "O2", ("", False): "O0"}
    for (asked, fp16_run), level in table.items():
        assert amp_level(asked, fp16_run, device) == level


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm])
def test_all_but_batch_norm_is_converted(norm):
    model = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 1), norm(4), torch.nn.LayerNorm(4))
    fine = 1 + 2.0**-20
    torch.nn.init.constant_(model[1].weight, fine)
    model[1].running_mean.fill_(fine)
    convert(model, torch.bfloat16)
    assert {tensor.dtype for layer in (model[0], model[2]) for tensor in layer.state_dict().values()} == {
        torch.bfloat16
    }
    assert model[1].weight[0] == fine and model[1].running_mean[0] == fine
    assert {tensor.dtype for tensor in model[1].state_dict().values()} == {torch.float32, torch.int64}
