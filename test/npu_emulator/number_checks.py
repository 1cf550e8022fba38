"""Checks of the emulated NPU: its numbers are the CPU's; test/unit/test_npu_emulator.py runs them."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from comparison import NPU, both, make_net, same
from torch_npu import emulator
from torch_npu.optim import NpuFusedAdam

pytest_plugins = ["check_fixtures"]
pytestmark = pytest.mark.usefixtures("fresh")


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
        "stft": (
            lambda x: torch.stft(x, 16, window=torch.hann_window(16, device=x.device), return_complex=True).abs(),
            [(2, 64)],
        ),
    }.values(),
)
def test_numbers_are_the_cpus(function, shapes):
    """Whatever a card would refuse of it."""
    with emulator.refusing(()), emulator.random_numbers_of_the_cpu():
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
    with emulator.refusing(()):  # torch's fused Adam is no operator of a card
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
    with emulator.refusing(()):  # torch's own divides in float64
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
    on_cpu = torch.randn(4)
    assert torch.equal(a, b) and not torch.equal(a.cpu(), on_cpu)
    with emulator.random_numbers_of_the_cpu():
        torch.manual_seed(7)
        assert same(torch.randn(4, device=NPU), on_cpu)
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


# ---- saturating arithmetic ----


def test_results_are_saturated_and_the_flag_tells():
    """The examples of torch_npu's documentation of INF_NAN_MODE_ENABLE, and what is copied to a smaller type."""
    utils = torch.npu.utils
    large, negative = torch.tensor([12.0], device=NPU).half(), torch.tensor([-1.0], device=NPU).half()
    assert large.exp().item() == float("inf") and utils.is_support_inf_nan()
    with pytest.raises(RuntimeError, match="Unsupported api"):
        utils.get_npu_overflow_flag()
    with emulator.saturating():
        assert not utils.is_support_inf_nan() and not utils.get_npu_overflow_flag()
        for result, expected in {
            lambda: large.exp(): 65504.0,
            lambda: -large.exp() * 2: -65504.0,
            lambda: negative.sqrt(): 0.0,
            lambda: torch.full((1,), 1e6, device=NPU).half(): 65504.0,
            lambda: torch.full((1,), 1e38, device=NPU) * 10: torch.finfo(torch.float32).max,
            lambda: F.conv2d(*torch.full((2, 1, 1, 1, 1), 300.0, device=NPU).half()): 65504.0,
        }.items():
            utils.clear_npu_overflow_flag()
            assert result().item() == expected and utils.get_npu_overflow_flag()
        utils.clear_npu_overflow_flag()
        assert (large * 2).item() == 24 and not utils.get_npu_overflow_flag()
