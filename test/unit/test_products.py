"""Products by oneDNN are those of PyTorch's own route, gradients included."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from on_card import OnCard
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from common.device import pick_device
from common.layers import matmul
from common.layers.matmul import (
    FEW_ROWS,
    ROWS_ON_CARD,
    can_pack,
    constant_linear,
    dtype_of_products,
    linear,
    product_over_rows,
)
from runs import CPU

PACKED = torch.ops.mkldnn._linear_pointwise
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
SHAPES = [(5,), (1,), (7, 3), (2, 1, 4)]


@pytest.mark.parametrize("rows", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_and_its_gradients(rows, has_bias, dtype):
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    generator = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(shape, generator=generator).to(dtype)  # noqa: E731
    given = [randn(*rows, 19), randn(6, 19), *([randn(6)] if has_bias else [])]
    gradient = randn(*rows, 6)
    found = []
    for function in (linear, F.linear):
        inputs = [each.clone().requires_grad_() for each in given]
        y = function(*inputs)
        found.append([y, *torch.autograd.grad(y, inputs, gradient)])
    for actual, expected in zip(*found, strict=True):
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, **tolerance)


def test_linear_of_a_part_of_a_matrix_and_of_rows_apart():
    """The decoder multiplies by some columns of an LSTM's weight."""
    weight, x = torch.randn(6, 30, requires_grad=True), torch.randn(4, 50, requires_grad=True)
    y = linear(x[:, 10:20], weight[:, 5:15])
    torch.testing.assert_close(y, x[:, 10:20] @ weight[:, 5:15].t(), rtol=1e-6, atol=1e-6)
    of_weight, of_x = torch.autograd.grad(y.sum(), (weight, x))
    assert of_weight[:, :5].eq(0).all() and of_x[:, :10].eq(0).all()
    torch.testing.assert_close(of_weight[:, 5:15], x[:, 10:20].sum(0).expand(6, -1).detach(), rtol=1e-6, atol=1e-6)


def assert_rounded_once(found: torch.Tensor, exact: torch.Tensor) -> None:
    """To half precision only the result is rounded."""
    atol = min(TOLERANCE[found.dtype], TOLERANCE[torch.float32])
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(found.dtype).eps, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_product_over_rows(dtype):
    x, y = torch.randn(40, 5).to(dtype), torch.randn(40, 3).to(dtype)
    found = product_over_rows(x, y)
    assert found.dtype == dtype
    assert_rounded_once(found, x.double().t() @ y.double())


def test_the_precision_of_products():
    x = torch.randn(2)
    assert [dtype_of_products(each) for each in (x, x.double(), x.bfloat16())] == [
        torch.float32,
        torch.float64,
        torch.bfloat16,
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dtype_of_products(x) == torch.bfloat16


def operators(function, *args):
    with FlopCounterMode(display=False, custom_mapping={PACKED: lambda *_, **__: 1}) as counter:
        function(*args)
    return set(counter.get_flop_counts()["Global"])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_float32_takes_the_ways_of_onednn():
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    assert operators(linear, x, weight) == {torch.ops.aten.convolution}
    assert operators(lambda: linear(x, weight).sum().backward()) == {
        torch.ops.aten.convolution,
        torch.ops.aten.convolution_backward,
    }
    assert operators(product_over_rows, x.detach(), x.detach()) == {torch.ops.aten.convolution_backward}
    assert operators(constant_linear(weight), x.detach()) == {PACKED}
    for dtype in (torch.float64, torch.bfloat16):  # and nothing else does
        assert operators(linear, x.to(dtype), weight.to(dtype)) == {torch.ops.aten.mm}
        assert operators(product_over_rows, x.detach().to(dtype), x.detach().to(dtype)) == {torch.ops.aten.mm}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("intel", [True, False])
def test_few_rows_in_float32_are_mkls_on_intels_processors(monkeypatch, intel):
    monkeypatch.setattr(matmul, "has_intel_processor", lambda: intel)
    product = constant_linear(torch.randn(12, 30), torch.randn(12))
    few = operators(product, torch.randn(FEW_ROWS, 30))
    assert few == ({torch.ops.aten.addmm} if intel else {PACKED})
    assert operators(product, torch.randn(FEW_ROWS + 1, 30)) == {PACKED}
    half = torch.randn(12, 30).bfloat16()
    of_half = {PACKED} if can_pack(half) else {torch.ops.aten.mm}  # not on a processor without AVX-512
    assert operators(constant_linear(half), torch.randn(1, 30).bfloat16()) == of_half


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, [ROWS_ON_CARD, 2, 9]), (torch.bfloat16, [1, 2, 9])])
def test_a_single_float32_row_is_several_on_a_cuda_card(monkeypatch, dtype, expected):
    multiplied = []
    monkeypatch.setattr(matmul, "can_pack", lambda weight: False)  # as on a card
    monkeypatch.setattr(
        matmul, "F", SimpleNamespace(linear=lambda x, *given: multiplied.append(len(x)) or F.linear(x, *given))
    )
    weight, bias, x = torch.randn(4, 6).to(dtype), torch.randn(4).to(dtype), torch.randn(9, 6).to(dtype)
    product = constant_linear(weight.as_subclass(OnCard), bias)
    for rows in (1, 2, 9):
        y = product(x[:rows])
        assert y.shape == (rows, 4)
        assert torch.allclose(y, F.linear(x[:rows], weight, bias), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert multiplied == expected


@pytest.mark.parametrize("text, intel", [("vendor_id\t: GenuineIntel\n", True), ("vendor_id\t: AuthenticAMD\n", False)])
def test_intels_processors_are_known(monkeypatch, tmp_path, text, intel):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(matmul, "Path", lambda name: tmp_path / Path(name).name)
    assert matmul.has_intel_processor.__wrapped__() == intel
    (tmp_path / "cpuinfo").unlink()
    assert not matmul.has_intel_processor.__wrapped__()


def test_what_is_exported_and_other_devices_keep_linear(monkeypatch):
    monkeypatch.setattr(matmul.F, "conv2d", lambda *_: pytest.fail("a linear layer became a convolution"))
    with torch.no_grad():
        linear(torch.randn(2, 4), torch.randn(3, 4))
    linear(torch.randn(2, 4, device="meta"), torch.randn(3, 4, device="meta"))


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("biased", [True, False])
def test_a_constant_layer_is_a_linear_one(rows, dtype, biased):
    torch.manual_seed(0)
    weight, bias, x = (torch.randn(*n, dtype=torch.double) for n in ((12, 30), (12,), (rows, 30)))
    linear = constant_linear(weight.to(dtype), bias.to(dtype) if biased else None)
    expected = F.linear(x, weight, bias if biased else None)
    found = linear(x.to(dtype))
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() < TOLERANCE[dtype] * (1 + expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_layer_may_be_a_part_of_a_matrix_and_keeps_no_gradient(dtype):
    """As the columns of an LSTM's weight are; however its rows lie in memory, and whatever becomes of the bias."""
    weight, bias = torch.randn(30, 24, requires_grad=True), torch.randn(12, requires_grad=True)
    x = torch.randn(5, 30)
    for part in (weight[:, 6:18].t(), weight[:, ::2].t(), weight.t()[:12]):
        product = constant_linear(part.to(dtype), bias.to(dtype))
        found = product(x.to(dtype))
        expected = F.linear(x, part, bias)
        assert not found.requires_grad
        assert (found.float() - expected).abs().max() < TOLERANCE[dtype] * (1 + expected.abs().max())


def test_it_is_packed_where_that_is_possible(monkeypatch):
    calls = []
    monkeypatch.setattr(matmul, "can_pack", lambda weight: calls.append(weight.shape) and False)
    constant_linear(torch.ones(3, 2))
    assert calls == [(3, 2)]
    monkeypatch.undo()
    assert can_pack(torch.ones(2, 2)) == torch.backends.mkldnn.is_available()
    assert not can_pack(torch.ones(2, 2, dtype=torch.float64))
    assert not can_pack(torch.ones(2, 2, device="meta"))


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_bfloat16_is_packed_where_the_processor_computes_in_it(monkeypatch, has_bfloat16):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bfloat16)
    expected = has_bfloat16 and torch.backends.mkldnn.is_available()
    assert can_pack(torch.ones(2, 2, dtype=torch.bfloat16)) == expected
    assert matmul.is_slow_in_half(pick_device("cpu")) == (not expected)


def test_a_pytorch_without_onednn_is_not_asked_for_it(monkeypatch):
    """Then it has no such operators at all."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: pytest.fail("asked"))
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.randn(5, 4).to(dtype), torch.randn(3, 4).to(dtype).requires_grad_()
        assert not can_pack(weight)
        for function, args in ((linear, (x, weight)), (product_over_rows, (x, x)), (constant_linear(weight), (x,))):
            assert operators(function, *args) == {torch.ops.aten.mm}
    assert matmul.is_slow_in_half(CPU)


def test_a_row_alone_is_that_row_among_others():
    """In bfloat16, in which a difference would be heard: one row is added up as several are."""
    torch.manual_seed(0)
    weight = torch.randn(512, 2560).bfloat16()
    if not can_pack(weight):
        pytest.skip("this processor has no bfloat16")
    product, x = constant_linear(weight), torch.randn(64, 2560).bfloat16()
    assert torch.equal(torch.cat([product(row[None]) for row in x]), product(x))
