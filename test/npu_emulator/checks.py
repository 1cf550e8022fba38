"""Checks of the emulated NPU in one process; test/unit/test_npu_emulator.py runs them in a process of their own."""

import io
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from torch_npu import emulator
from torch_npu.optim import NpuFusedAdam

from common.device import make_adam, pick_device

NPU = torch.device("npu", 0)


@pytest.fixture(autouse=True)
def fresh():
    torch.set_num_threads(2)
    torch.manual_seed(0)
    torch.npu.set_device(0)
    emulator.reset()


def same(on_npu, on_cpu) -> bool:
    """Bit for bit, and where they should be."""
    return on_npu.device.type == "npu" and on_cpu.device.type == "cpu" and torch.equal(on_npu.cpu(), on_cpu)


def both(function, *inputs):
    """Results and input gradients of a function on the NPU and on the CPU."""
    outcomes = []
    for device in ("npu", "cpu"):
        torch.manual_seed(1)
        there = [x.detach().to(device).requires_grad_(x.is_floating_point()) for x in inputs]
        result = function(*there)
        (result.float() ** 2).sum().backward()
        outcomes.append([result.detach(), *(x.grad for x in there if x.grad is not None)])
    return zip(*outcomes)


# ---- device ----


def test_torch_sees_npus():
    assert torch.npu.is_available() and torch.npu.device_count() == 8
    assert torch.accelerator.current_accelerator().type == "npu"
    x = torch.ones(2).npu()
    assert x.is_npu and str(x.device) == "npu:0" and "npu:0" in repr(x)
    with pytest.raises(TypeError, match="npu"):
        x.numpy()


def test_current_device():
    torch.npu.set_device("npu:3")
    assert torch.zeros(1, device="npu").device.index == 3
    with torch.npu.device(5):
        assert torch.npu.current_device() == 5
    assert torch.npu.current_device() == 3
    x = torch.ones(2, device="npu:1", requires_grad=True)
    (x * 2).tanh().sum().backward()
    assert x.grad.device.index == 1
    with pytest.raises(RuntimeError, match="invalid device ordinal 9"):
        torch.zeros(1, device="npu:9")
    with pytest.raises(RuntimeError, match="invalid device ordinal 8"):
        torch.npu.set_device(8)


def test_memory_is_counted():
    torch.npu.reset_peak_memory_stats()
    before = torch.npu.memory_allocated()
    x = torch.zeros(1000, device=NPU)
    y = x + 1
    assert torch.npu.memory_allocated() - before == 8000
    assert torch.npu.memory_allocated(1) == 0
    del x, y
    assert torch.npu.memory_allocated() == before
    assert torch.npu.max_memory_allocated() >= before + 8000


def test_product_takes_it():
    device = pick_device("auto", 1)
    assert (device.type, device.backend, str(device.device)) == ("npu", "hccl", "npu:1")
    assert isinstance(make_adam(nn.Linear(2, 2).to(device.device).parameters(), 1e-3, device), NpuFusedAdam)


# ---- copies and mixtures ----


def test_copies_are_counted():
    x = torch.randn(10).to(NPU)
    y = (x * 2).half().cpu()
    x.sum().item()
    x.clone()
    assert emulator.copies() == emulator.Copies(1, 1, 2, 1, 40, 20)
    assert y.device.type == "cpu"
    assert emulator.operator_counts() == {"mul": 1, "sum": 1}
    emulator.reset()
    assert emulator.operator_counts() == {} and emulator.copies().host_to_device == 0


def test_devices_do_not_mix():
    x = torch.ones(3, device=NPU)
    for other in (torch.ones(3), torch.ones(3, device="npu:1")):
        with pytest.raises(RuntimeError, match="on the same device"):
            x + other
    with pytest.raises(RuntimeError, match="on the same device"):
        nn.Linear(3, 3)(x)
    with pytest.raises(RuntimeError, match="on the same device"):
        nn.Conv2d(3, 3, 1)(torch.ones(1, 3, 4, 4, device=NPU))
    assert (x * torch.tensor(2.0)).tolist() == [2, 2, 2]
    assert x[torch.tensor([0, 2])].shape == (2,)


def test_autograd_crosses():
    x, w = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    (x.to(NPU).tanh().cpu() * w).sum().backward()
    x_there = x.detach().clone().to(NPU).requires_grad_()
    (x_there.cpu().tanh() * w.detach()).sum().backward()
    assert same(x_there.grad, x.grad)
    assert torch.equal(w.grad, x.detach().tanh())


# ---- refused operators ----


@pytest.mark.parametrize(
    "name, call",
    {
        "unfold": lambda: torch.ones(1, 8, device=NPU).unfold(1, 4, 4),
        "im2col": lambda: F.unfold(torch.ones(1, 1, 4, 4, device=NPU), 2),
        "col2im": lambda: F.fold(torch.ones(1, 4, 9, device=NPU), 4, 2),
        "conv1d": lambda: F.conv1d(torch.ones(1, 2, 8, device=NPU), torch.ones(3, 2, 1, device=NPU)),
        "conv_transpose1d": lambda: nn.ConvTranspose1d(2, 2, 4).to(NPU)(torch.ones(1, 2, 8, device=NPU)),
        "_linalg_slogdet": lambda: torch.logdet(torch.eye(2, device=NPU)),
        "_linalg_slogdet ": lambda: torch.linalg.slogdet(torch.eye(2, device=NPU)),
        "_linalg_det": lambda: torch.det(torch.eye(2, device=NPU)),
        "linalg_lu_factor_ex": lambda: torch.linalg.lu_factor(torch.eye(2, device=NPU)),
        "linalg_lu_factor_ex ": lambda: torch.lu(torch.eye(2, device=NPU)),
        "linalg_lu": lambda: torch.linalg.lu(torch.eye(2, device=NPU)),
    }.items(),
)
def test_refused(name, call):
    with pytest.raises(NotImplementedError, match=f"'aten::{name.strip()}'"):
        call()
    assert name.strip() not in emulator.operator_counts()


def test_refused_backward():
    x, w = torch.ones(1, 2, 8, device=NPU, requires_grad=True), torch.ones(3, 2, 1, device=NPU)
    with emulator.refusing(emulator.REFUSED - {"conv1d"}):
        y = F.conv1d(x, w).sum()
        with pytest.raises(NotImplementedError, match="'aten::conv1d_backward'"):
            y.backward()


def test_refusal_is_adjustable():
    w = torch.eye(3, device=NPU) * 2
    with emulator.refusing({"tanh"}):
        assert torch.logdet(w).item() == pytest.approx(3 * torch.tensor(2.0).log().item())
        with pytest.raises(NotImplementedError, match="'aten::tanh'"):
            w.tanh()
    assert w.tanh().is_npu
    # repeat is made of unfold, and is not refused with it.
    assert w.repeat(1, 2).shape == (3, 6)


# ---- numbers ----


@pytest.mark.parametrize(
    "function, shapes",
    {
        "elementwise": (lambda x: (x.tanh() * x.sigmoid()).exp() / (1 + x.abs()), [(64, 33)]),
        "matmul": (lambda x, y: torch.einsum("bij,bjk->bik", x, y), [(3, 17, 9), (3, 9, 5)]),
        "linear": (F.linear, [(4, 7, 33), (12, 33), (12,)]),
        "conv2d": (
            lambda x, w, b: F.conv2d(x, w, b, padding=(4, 0), dilation=(4, 1)),
            [(2, 8, 50, 1), (16, 8, 3, 1), (16,)],
        ),
        "channels_last": (
            lambda x, w: F.conv2d(x.to(memory_format=torch.channels_last), w),
            [(2, 8, 9, 9), (4, 8, 3, 3)],
        ),
        "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, stride=2), [(2, 4, 6, 6), (4, 3, 4, 4)]),
        "weight norm": (lambda v, g: torch._weight_norm(v, g, 0), [(16, 8, 3), (16, 1, 1)]),
        "layer norm": (lambda x, w, b: F.layer_norm(x, (33,), w, b), [(5, 33), (33,), (33,)]),
        "group norm": (lambda x: F.group_norm(x, 3), [(4, 6, 10)]),
        "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), [(4, 6, 10)]),
        "silu": (F.silu, [(5, 30)]),
        "softmax": (lambda x: F.softmax(x, 1).log(), [(5, 30)]),
        "dropout": (lambda x: F.dropout(x, 0.1), [(50, 20)]),
        "views": (lambda x: torch.cat([x[:, 1::2].transpose(0, 1), x.chunk(2, 1)[0].t()], 1).reshape(-1), [(6, 8)]),
        "in place": (lambda x: (x * 1).add_(1).mul_(x).masked_fill(x > 0.5, 3), [(6, 8)]),
        "embedding": (lambda w: F.embedding(torch.tensor([1, 3, 1], device=w.device), w), [(5, 4)]),
        "reflection": (lambda x: F.pad(x, (2, 2), mode="reflect"), [(2, 3, 9)]),
        "inverse": (lambda x: torch.linalg.inv(x + 9 * torch.eye(4, device=x.device)), [(4, 4)]),
        "stft": (
            lambda x: torch.stft(x, 16, window=torch.hann_window(16, device=x.device), return_complex=True).abs(),
            [(2, 64)],
        ),
    }.values(),
)
def test_numbers_are_the_cpus(function, shapes):
    for on_npu, on_cpu in both(function, *(torch.randn(shape) for shape in shapes)):
        assert same(on_npu, on_cpu)


def test_out_and_resize():
    out = torch.empty(0, device=NPU)
    torch.mul(torch.ones(3, device=NPU), 2, out=out)
    assert out.tolist() == [2, 2, 2]
    assert torch.empty(2, device=NPU).resize_(10).zero_().sum().item() == 0
    x = torch.zeros(4, 6, device=NPU)
    x[:, 1] = 5
    x[2].add_(1)
    view = x.view(2, 12)
    view.mul_(2)
    assert view.data_ptr() == x.data_ptr() and x.cpu()[0, 1] == 10 and x.cpu()[2, 0] == 2


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, (3, 1), padding=(1, 0)), nn.Tanh(), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def train(device, make_optimizer, steps=5):
    """Losses and final weights."""
    net = make_net().to(device)
    optimizer = make_optimizer(net.parameters())
    x = torch.randn(3, 2, 20, 1, generator=torch.Generator().manual_seed(1)).to(device)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
    return losses, [param.detach().cpu() for param in net.parameters()], optimizer


@pytest.mark.parametrize(
    "on_npu, on_cpu",
    [
        (lambda p: NpuFusedAdam(p, lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01, fused=True)),
        (
            lambda p: NpuFusedAdam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
            lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True, fused=True),
        ),
        *[
            (lambda p, o=o: torch.optim.Adam(p, lr=0.01, **o),) * 2
            for o in ({"fused": True}, {"foreach": True}, {"foreach": False, "fused": False})
        ],
        (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),) * 2,
    ],
)
def test_training_is_the_cpus(on_npu, on_cpu):
    losses, weights, _ = train(NPU, on_npu)
    cpu_losses, cpu_weights, _ = train("cpu", on_cpu)
    assert losses == cpu_losses and losses[-1] < losses[0]
    assert all(map(torch.equal, weights, cpu_weights))


@pytest.mark.parametrize("packed", [False, True])
def test_lstm(packed):
    outcomes = []
    for device in ("npu", "cpu"):
        torch.manual_seed(0)
        lstm, cell = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.LSTMCell(8, 5)
        lstm, cell = lstm.to(device), cell.to(device)
        x = torch.randn(2, 6, 3).to(device).requires_grad_()
        inputs = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4]), batch_first=True) if packed else x
        y, (h, _) = lstm(inputs)
        y = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0] if packed else y
        state = None
        for t in range(6):
            state = cell(y[:, t], state)
        (state[0].sum() + h.square().sum()).backward()
        outcomes.append([state[0].detach(), x.grad, *(p.grad for p in [*lstm.parameters(), *cell.parameters()])])
    assert all(map(same, *outcomes))
    assert emulator.operator_counts()["lstm_cell"] == 6 and emulator.operator_counts()["lstm"] == 1
    with torch.inference_mode():
        assert nn.LSTM(3, 4).to(NPU)(torch.ones(2, 1, 3, device=NPU))[0].is_npu


# ---- precision ----


def test_autocast_and_scaler():
    net = make_net().to(NPU)
    optimizer = NpuFusedAdam(net.parameters())
    scaler = torch.amp.GradScaler("npu", init_scale=128.0)
    x = torch.randn(3, 2, 20, 1, device=NPU)
    with torch.autocast("npu", dtype=torch.float16):
        y = net(x)
        assert y.dtype == torch.float16
        loss = F.mse_loss(y, torch.zeros_like(y))
        assert loss.dtype == torch.float32
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    before = [param.clone() for param in net.parameters()]
    optimizer.zero_grad()
    scaler.scale(net(x).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 64
    assert all(torch.equal(*pair) for pair in zip(before, net.parameters()))
    assert torch.npu.amp.GradScaler(init_scale=128.0, dynamic=False).is_enabled()
    with torch.npu.amp.autocast():
        assert torch.is_autocast_enabled("npu")


# ---- random numbers ----


def test_generators():
    torch.manual_seed(7)
    a = torch.randn(4, device=NPU)
    torch.manual_seed(7)
    torch.randn(9)
    b = torch.randn(4, device=NPU)
    torch.manual_seed(7)
    assert torch.equal(a, b) and same(a, torch.randn(4))
    state = torch.npu.get_rng_state()
    a = F.dropout(torch.ones(9, device=NPU))
    torch.npu.set_rng_state(state)
    assert torch.equal(a, F.dropout(torch.ones(9, device=NPU)))
    torch.npu.manual_seed(3)
    draws = [torch.randn(3, device="npu", generator=g) for g in (None, torch.Generator("npu").manual_seed(3))]
    assert torch.equal(*draws)
    with pytest.raises(RuntimeError, match="'npu' device type for generator"):
        torch.randn(3, device=NPU, generator=torch.Generator())
    with pytest.raises(NotImplementedError, match="native_dropout"):
        torch.native_dropout(torch.ones(3, device=NPU), 0.5, True)


# ---- files and loaders ----


def test_save_and_load():
    net = make_net().to(NPU)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    for location, device in ((None, "npu:0"), ("cpu", "cpu"), ("npu:1", "npu:1")):
        file.seek(0)
        state = torch.load(file, map_location=location, weights_only=True)
        assert str(state["0.weight"].device) == device
        assert torch.equal(state["0.weight"].cpu(), net[0].weight.cpu())
    make_net().load_state_dict(state)


def test_pinned_loader():
    batches = torch.utils.data.DataLoader(torch.arange(8.0), batch_size=4, pin_memory=True, num_workers=1)
    assert [batch.is_pinned() for batch in batches] == [True, True]
    assert sum(batch.to(NPU, non_blocking=True).sum().item() for batch in batches) == 28


# ---- NpuFusedAdam ----


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
    assert emulator.operator_counts()["_fused_adam_"] == 3
