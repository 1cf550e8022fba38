"""Checks of the emulated NPU: NpuFusedAdam; test/unit/test_npu_emulator.py runs them."""

import io
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from comparison import NPU
from torch_npu import emulator
from torch_npu.optim import NpuFusedAdam

pytest_plugins = ["check_fixtures"]
pytestmark = pytest.mark.usefixtures("fresh")


def params_with_grad(*shapes, dtype=torch.float32):
    params = [nn.Parameter(torch.ones(shape, device=NPU, dtype=dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.ones_like(param)
    return params


def test_adam_refuses():
    with pytest.raises(TypeError, match="float32 or float16"):
        NpuFusedAdam(params_with_grad((2,), dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="on an npu"):
        NpuFusedAdam([nn.Parameter(torch.ones(2))])
    with pytest.raises(RuntimeError, match="contiguous"):
        NpuFusedAdam([nn.Parameter(torch.ones(2, 3, device=NPU).t())])
    with pytest.raises(ValueError, match="set_to_none"):
        NpuFusedAdam(params_with_grad((2,))).zero_grad(set_to_none=True)


def test_adam_combines_once():
    params = params_with_grad((2, 3), (4,)) + params_with_grad((5,), dtype=torch.float16)
    frozen = nn.Parameter(torch.ones(2, device=NPU))
    optimizer = NpuFusedAdam([*params, frozen], lr=0.1)
    optimizer.step()
    # 6 float32, and what is missing to 64 bytes
    assert params[1].data_ptr() == params[0].data_ptr() + 64
    assert params[1].grad.data_ptr() == params[0].grad.data_ptr() + 64
    assert params[2].dtype == torch.float16 and params[2][0].item() == pytest.approx(0.9, abs=1e-3)
    optimizer.zero_grad()
    assert all(param.grad.eq(0).all() for param in params)
    # What had no gradient when all were combined is left out for good.
    frozen.grad = torch.ones_like(frozen)
    optimizer.step()
    assert frozen.tolist() == [1, 1]


def test_adam_keeps_using_the_first_gradients():
    replaced, kept = params_with_grad((3,)), params_with_grad((3,))
    optimizers = [NpuFusedAdam(params, lr=0.1) for params in (replaced, kept)]
    for optimizer in optimizers:
        optimizer.step()
    replaced[0].grad = torch.full((3,), -5.0, device=NPU)
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(replaced[0], kept[0])
    kept[0].grad.copy_(replaced[0].grad)
    for optimizer in optimizers:
        optimizer.step()
    assert not torch.equal(replaced[0], kept[0])


def test_adam_clips():
    params = params_with_grad((8, 2), (9,))
    optimizer = NpuFusedAdam(params)
    assert optimizer.clip_grad_norm_fused_(1.0).item() == pytest.approx(5)
    assert params[0].grad[0, 0].item() == pytest.approx(0.2)
    assert optimizer.clip_grad_norm_fused_(9.0).item() == pytest.approx(1)
    assert params[0].grad[0, 0].item() == pytest.approx(0.2)


def test_adam_resumes():
    def step(optimizer, value):
        for param in optimizer.param_groups[0]["params"]:
            param.grad.fill_(value)
        optimizer.step()

    first = params_with_grad((3,), (2, 2))
    optimizer = NpuFusedAdam(first, lr=0.1)
    step(optimizer, 1.0)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True, map_location="cpu")
    assert state["state"][0]["step"] == 1 and set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}

    second, too_late = params_with_grad((3,), (2, 2)), params_with_grad((3,), (2, 2))
    resumed, late = NpuFusedAdam(second, lr=0.1), NpuFusedAdam(too_late, lr=0.1)
    step(late, 9.0)
    late.load_state_dict(state)
    for params in (second, too_late):
        for param, value in zip(params, first):
            param.data.copy_(value)
    resumed.load_state_dict(state)
    for each in (optimizer, resumed, late):
        step(each, -2.0)
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], too_late[0])
    assert emulator.copies().host_to_device <= 10


def test_adam_steps_without_crossing():
    params = params_with_grad((3,), (2, 2))
    optimizer = NpuFusedAdam(params)
    emulator.reset()
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
    copies = emulator.copies()
    assert copies.host_to_device == copies.device_to_host == copies.scalars_read == 0
    assert emulator.operator_counts()["npu_apply_adam"] == 3
