"""Checks of the emulated NPU: device, copies, refused operators, files; test/unit/test_npu_emulator.py runs them."""

import io
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from comparison import NPU, make_net, same
from torch_npu import emulator, limits
from torch_npu.optim import NpuFusedAdam

from common.adam import make_adam
from common.device import pick_device

pytest_plugins = ["check_fixtures"]
pytestmark = pytest.mark.usefixtures("fresh")


# ---- device ----


def test_torch_sees_npus():
    assert torch.npu.is_available() and torch.npu.device_count() == 8
    assert torch.accelerator.current_accelerator().type == "npu"
    x = torch.ones(2).npu()
    with emulator.refusing(()):  # numbers are printed in float64
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
    assert (device.type, device.backend, str(device.torch_device)) == ("npu", "hccl", "npu:1")
    assert isinstance(make_adam(nn.Linear(2, 2).to(device.torch_device).parameters(), 1e-3, device), NpuFusedAdam)


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


# ---- what is refused ----

CONVOLUTIONS = {
    "transposed kernels": lambda: F.conv_transpose2d(*planes(1, 256)),
    "transposed dilation": lambda: F.conv_transpose2d(*planes(1, 2), dilation=256),
    "padding": lambda: F.conv2d(*planes(1, 1), padding=256),
    "dimensions": lambda: F.conv2d(*planes(1_000_001, 1)),
}
"Of the table's rows those about the sizes of a convolution: something just beyond each."


def planes(height: int, taps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and weight."""
    return torch.ones(1, 1, height, 1, device=NPU), torch.ones(1, 1, taps, 1, device=NPU)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_beyond_the_limits_is_refused(name):
    what, largest = limits.ROWS[name].convolution
    with pytest.raises(NotImplementedError, match=rf"{what} of up to {largest} in a convolution, not of {largest + 1}"):
        CONVOLUTIONS[name]()
    assert F.conv_transpose2d(*planes(1, 255)).shape == (1, 1, 255, 1)
    with emulator.refusing(()):
        assert F.conv_transpose2d(*planes(1, 256)).shape == (1, 1, 256, 1)


def test_what_torch_npu_has_no_kernel_for_is_refused():
    x = torch.ones(2, 2, device=NPU)
    for name, call in {"_fused_adam_": torch.optim.Adam([x.requires_grad_()], fused=True).step, "erfcx": None}.items():
        x.grad = torch.ones_like(x)
        with pytest.raises(NotImplementedError, match=f"no kernel for 'aten::.*{name}'.*FALLBACK_CPU_DISABLE"):
            call() if call else torch.special.erfcx(x.detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_wide_types_can_be_kept_and_not_computed_with(dtype):
    x = torch.ones(2, dtype=dtype).to(NPU)
    assert x.cpu().dtype == x.to("npu:1").dtype == dtype
    with pytest.raises(NotImplementedError, match="does not compute with"):
        x + x
    assert (torch.ones(2, device=NPU) * torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32


def test_each_row_of_the_table_holds_for_its_cards_and_versions():
    def refused(card, cann):
        return {name for row in limits.holding(card, cann) for name in row.names}

    assert {"conv1d", "linalg_inv_ex"} <= refused("Ascend910A", (9, 1))
    assert "conv1d" in refused("Ascend910B", (9, 1)) and "conv1d" in refused("Ascend910B3", (7, 0))
    assert "conv1d" not in refused("Ascend910B3", (8, 0)) and "conv1d" not in refused("Ascend910_9391", (8, 0))
    assert "unfold_backward" in refused("Ascend910B3", (8, 2)) - refused("Ascend910B3", (8, 3))
    assert refused("Ascend910A", (7, 0)) == emulator.REFUSED
    assert all(row.source and (row.names or row.convolution) for row in limits.ROWS.values())
    assert {name for name, row in limits.ROWS.items() if row.convolution} == set(CONVOLUTIONS)
    assert {"mm", "_weight_norm_interface"} <= limits.with_kernel((7, 0)) < limits.with_kernel((9, 1))


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
        "linalg_inv_ex": lambda: torch.linalg.inv(torch.eye(2, device=NPU)),
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
