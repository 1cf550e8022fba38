"""Dropout by 16 random bits an element."""

import pytest
import torch

from common.layers.dropout import dropout


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.1, 0.5, 0.9, 1.0])
def test_what_is_dropped_and_what_is_kept(p):
    torch.manual_seed(0)
    x = torch.randn(1001, 999).abs() + 1
    y = dropout(x, p)
    kept = y != 0
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs((~kept).float().mean().item() - p) < 5 * deviation + 2**-17
    if kept.any():
        ratio = y[kept] / x[kept]
        assert ratio.max() - ratio.min() < 1e-5 and abs(ratio[0].item() * (1 - p) - 1) < 1e-4  # p in steps of 2**-16


def test_the_smallest_share_is_one_in_65536():
    torch.manual_seed(0)
    y = dropout(torch.ones(2**23), 2**-16)
    assert abs((y == 0).sum().item() - 2**7) < 5 * 2**3.5 and y.max().item() == pytest.approx(2**16 / (2**16 - 1))


def test_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(2**20), 0.5) != 0).double() - 0.5
    for shift in (1, 2, 3, 4, 1000):
        assert abs((kept[shift:] * kept[:-shift]).mean()) < 5 * 0.25 / 2**10


def test_off():
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x
    assert torch.equal(dropout(x, 0.0), x)


def test_what_is_all_but_certain_to_be_dropped_is_finite():
    assert torch.isfinite(dropout(torch.ones(2**20), 1 - 1e-9)).all()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3, 5)])
def test_any_shape(shape):
    assert dropout(torch.ones(shape), 0.5).shape == shape


def test_seed_layout_precision_and_gradient():
    x = torch.randn(2, 3, 5, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
    torch.manual_seed(3)
    y = dropout(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(y, dropout(x, 0.4)) and not torch.equal(y, dropout(x, 0.4))
    assert y.dtype == x.dtype and y.stride() == x.stride()
    y.sum().backward()
    assert torch.equal(x.grad != 0, y != 0)
    assert dropout(x[:, ::2], 0.4).shape == (2, 3, 3)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (2, 1, 0)])
def test_random_numbers_go_by_the_places_in_memory(order):
    """Whatever the axes are called, which is fastest; the seed alone decides."""
    x = torch.randn(3, 5, 7)
    torch.manual_seed(3)
    expected = dropout(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(dropout(x.permute(order), 0.4), expected.permute(order))
