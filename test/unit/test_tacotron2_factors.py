"""The same factor at every step: its gradient comes of one product."""

import pytest
import torch

from tacotron2.factors import SharedFactor

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
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
