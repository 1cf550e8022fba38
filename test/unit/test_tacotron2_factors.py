"""Products with a constant matrix, in oneDNN's order of it or not."""

import pytest
import torch
from torch.nn import functional as F

from tacotron2 import factors
from tacotron2.factors import SharedFactor, constant_linear

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


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


def test_it_is_packed_where_that_is_possible(monkeypatch):
    calls = []
    monkeypatch.setattr(factors, "_can_pack", lambda weight: calls.append(weight.shape) and False)
    constant_linear(torch.ones(3, 2))
    assert calls == [(3, 2)]
    monkeypatch.undo()
    assert factors._can_pack(torch.ones(2, 2)) == torch.backends.mkldnn.is_available()
    assert not factors._can_pack(torch.ones(2, 2, dtype=torch.float64))
    assert not factors._can_pack(torch.ones(2, 2, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_in_each_precision_have_the_gradients_of_one_product(dtype):
    torch.manual_seed(0)
    factor = torch.randn(6, 8, requires_grad=True)
    known, x = torch.randn(4, 3, 8, requires_grad=True), torch.randn(4, 3, 6, requires_grad=True)
    cotangent = torch.randn(4, 3, 8)
    product = SharedFactor(factor)
    steps = zip(product.collect(known.to(dtype)), x)
    found = torch.stack([product(each, row) for each, row in steps])
    of_found = torch.autograd.grad((found.float() * cotangent).sum(), [factor, known, x])
    expected = known + x @ factor
    of_expected = torch.autograd.grad((expected * cotangent).sum(), [factor, known, x])
    for one, other in zip([expected, *of_expected], [found, *of_found], strict=True):
        assert (one - other.float()).abs().max() < TOLERANCE[dtype] * (1 + one.abs().max())
