"""O1, O2 and the loss scale, in float16 (on the CPU here, as on NPU and CUDA cards)."""

from dataclasses import replace

import pytest
import torch

from common.device import pick_device
from common.precision import Precision

FLOAT16 = replace(pick_device("cpu"), half=torch.float16)


def setup(level, loss_scale):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    precision = Precision(level, loss_scale, FLOAT16, model)
    return model, precision, torch.optim.SGD(precision.master_params, lr=0.1)


def step(model, precision, optimizer, factor=1.0):
    """One step on a fixed input; whether it was finite."""
    x = torch.linspace(-1, 1, 12).view(3, 4).to(precision.input_dtype)
    optimizer.zero_grad()
    with precision.autocast():
        loss = (model(x).float() ** 2).mean() * factor
    precision.backward(loss)
    precision.unscale_gradients()
    finite = all(bool(torch.isfinite(p.grad).all()) for p in precision.master_params)
    if finite:
        optimizer.step()
    precision.finish_step(finite)
    return finite


def test_o2_keeps_a_half_model_and_float32_masters():
    model, precision, optimizer = setup("O2", 128.0)
    assert all(p.dtype == torch.float16 for p in model.parameters())
    assert all(p.dtype == torch.float32 for p in precision.master_params)
    assert step(model, precision, optimizer)
    for param, master in zip(model.parameters(), precision.master_params):
        assert torch.equal(param, master.half())


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("loss_scale", [1.0, 128.0, "dynamic"])
def test_the_loss_scale_does_not_change_the_step(level, loss_scale):
    exact = setup("O0", "dynamic")
    half = setup(level, loss_scale)
    for _ in range(5):
        assert step(*exact)
        while not step(*half):  # a dynamic scale may first have to come down
            assert loss_scale == "dynamic"
    for expected, actual in zip(exact[1].master_params, half[1].master_params):
        assert (expected - actual).abs().max() < 1e-3


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_an_overflow_is_left_out_and_halves_a_dynamic_scale(level):
    model, precision, optimizer = setup(level, "dynamic")
    before = [p.detach().clone() for p in precision.master_params]
    scale = precision.scale
    assert not step(model, precision, optimizer, factor=1e6)
    assert precision.scale == scale / 2
    assert all(torch.equal(p, b) for p, b in zip(precision.master_params, before))


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


def test_no_scale_where_none_is_needed():
    bfloat16 = pick_device("cpu")
    assert Precision("O2", 128.0, bfloat16, torch.nn.Linear(1, 1)).scale == 1.0
    assert Precision("O0", 128.0, FLOAT16, torch.nn.Linear(1, 1)).scale == 1.0


def test_weights_go_out_and_in_as_float32():
    model, precision, optimizer = setup("O2", 128.0)
    step(model, precision, optimizer)
    state = {name: tensor.clone() for name, tensor in precision.model_state(model).items()}
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    other, again, _ = setup("O2", 128.0)
    again.load_model_state(other, state)
    assert all(torch.equal(a, b) for a, b in zip(again.master_params, precision.master_params))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters()))
