"""Gradients that are collected over the steps of a recurrence are those of plain autograd."""

import gc
import weakref

import pytest
import torch
import torch.distributed as dist
from test_tacotron2_model import toy, toy_batch
from torch.nn.parallel import DistributedDataParallel

from tacotron2 import decoder, factors, model
from tacotron2.attention import scores
from tacotron2.factors import SharedFactor
from tacotron2.loss import Tacotron2Loss
from tacotron2.lstm import lstm


class PlainFactor:
    """What ``SharedFactor`` is, to autograd alone."""

    def __init__(self, factor):
        self.factor = factor

    def collect(self, known):
        return known.unbind(0)

    def __call__(self, known, x):
        return known + x @ self.factor


def test_scores_have_their_gradients():
    torch.manual_seed(0)
    shapes = (2, 3, 5), (2, 3, 5), (2, 3), (2, 1, 3)
    parts = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(scores, parts)
    with torch.no_grad():
        expected = scores(*parts)
    assert torch.allclose(scores(*parts), expected)


def training_toy():
    # The prenet's dropout is drawn anew at each pass, the rest is off.
    return toy(p_prenet_dropout=0.0, p_attention_dropout=0.0, p_decoder_dropout=0.0)


def loss_of(network, batch=None):
    text, text_lengths, mel, mel_lengths = batch or toy_batch()
    return Tacotron2Loss()(network(text, text_lengths, mel, mel_lengths), text_lengths, mel, mel_lengths)


def gradients(network):
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def difference(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in some)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_a_recurrence_has_the_gradients_of_plain_autograd(shape):
    torch.manual_seed(0)
    known = torch.randn(5, *shape, 4, 12, dtype=torch.double, requires_grad=True)
    factor = torch.randn(*shape, 3, 12, dtype=torch.double, requires_grad=True)
    cotangent = torch.randn(*shape, 4, 3, dtype=torch.double)
    found = []
    for kind in (SharedFactor, PlainFactor):
        product = kind(factor)
        hidden = cell = torch.zeros(*shape, 4, 3, dtype=torch.double)
        for gates in product.collect(known):
            hidden, cell = lstm(product(gates, hidden), cell)
        found.append((hidden, *torch.autograd.grad((hidden * cotangent).sum(), [known, factor])))
    for ours, plain in zip(*found):
        assert (ours - plain).abs().max() < 1e-12
        assert plain.abs().max() > 1e-3


@pytest.mark.parametrize("packed", [False, True])
def test_the_model_has_the_gradients_of_plain_autograd(monkeypatch, packed):
    """Packed matrices round otherwise; one rounding of the query's weight already moves a gradient of 5 by 9e-5."""
    if not packed:
        monkeypatch.setattr(factors, "can_pack", lambda weight: False)
    network = training_toy()
    loss_of(network).backward()
    ours = gradients(network)
    assert all(gradient.abs().max() > 0 for gradient in ours.values())
    network.zero_grad()
    monkeypatch.setattr(decoder, "SharedFactor", PlainFactor)
    monkeypatch.setattr(model, "SharedFactor", PlainFactor)
    loss_of(network).backward()
    assert difference(ours, gradients(network)) < (5e-4 if packed else 2e-6)


def test_gradients_add_up_over_batches():
    network = training_toy()
    loss_of(network).backward()
    once = gradients(network)
    loss_of(network).backward()
    assert difference({name: 2 * gradient for name, gradient in once.items()}, gradients(network)) < 1e-6


def test_gradients_through_ddp(tmp_path):
    network = training_toy()
    loss_of(network).backward()
    alone = gradients(network)
    network.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(network)
        with wrapped.no_sync():
            loss_of(wrapped).backward()
        loss_of(wrapped).backward()
    finally:
        dist.destroy_process_group()
    assert difference({name: 2 * gradient for name, gradient in alone.items()}, gradients(network)) < 1e-6


@pytest.mark.parametrize("backward", [True, False])
def test_nothing_outlives_the_loss(backward, monkeypatch):
    seen = []
    keep = SharedFactor.__call__

    def watch(self, known, x):
        seen.append(weakref.ref(x))
        return keep(self, known, x)

    monkeypatch.setattr(SharedFactor, "__call__", watch)
    gc.collect()
    gc.disable()
    try:
        loss = loss_of(training_toy())
        assert any(x() is not None for x in seen)
        if backward:
            loss.backward()
        del loss
        assert not any(x() is not None for x in seen)
    finally:
        gc.enable()


def test_a_second_backward_pass_is_refused():
    factor = torch.ones(2, 2, requires_grad=True)
    product = SharedFactor(factor)
    (known,) = product.collect(torch.ones(1, 3, 2))
    loss = product(known, torch.ones(3, 2)).sum()
    loss.backward(retain_graph=True)
    assert torch.equal(factor.grad, torch.full((2, 2), 3.0))
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
