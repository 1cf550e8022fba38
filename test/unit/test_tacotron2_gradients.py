"""Recurrences that are one node of autograd have the gradients of plain autograd through the steps of inference."""

import gc
import weakref
from functools import partial

import pytest
import torch
from recurrences import recurrence, step_by_step
from tacotron2_toys import toy, toy_batch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from runs import in_a_group, needs_float16
from tacotron2 import attention_recurrence, model
from tacotron2.attention_recurrence import MASKED, attend_over_time
from tacotron2.decoder import Decoded, Decoder
from tacotron2.loss import Tacotron2Loss
from tacotron2.lstm import FRAMES_AT_A_TIME, lstm


def attend_step_by_step(known, feedback, query, keys, kernel, v, values, padding, masks):
    """The same by autograd."""
    hidden = cell = known.new_zeros(len(keys), query.shape[1])
    context, earlier = torch.zeros_like(values[:, 0]), keys.new_zeros(len(keys), 2, keys.shape[1])
    states, alignments = [], []
    for t, gates in enumerate(known):
        hidden, cell = lstm(gates + torch.cat([hidden, context], dim=1) @ feedback.t(), cell)
        hidden = hidden if masks is None else hidden * masks[t]
        location = F.conv1d(earlier, kernel, padding=kernel.shape[2] // 2).transpose(1, 2)
        energies = torch.sigmoid(keys + (hidden @ query.t())[:, None] + location) @ v
        weights = torch.softmax(energies.masked_fill(padding, MASKED), dim=1)
        context = (weights[:, :, None] * values).sum(1)
        earlier = torch.stack([weights, earlier[:, 1] + weights], dim=1)
        states.append(torch.cat([hidden, context], dim=1))
        alignments.append(weights)
    return torch.stack(states), torch.stack(alignments)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("steps", "symbols"), [(1, 6), (FRAMES_AT_A_TIME + 3, 6), (4, 2)])
def test_attention_has_the_gradients_of_plain_autograd(steps, symbols, masked):
    """Of texts shorter than the kernel, too."""
    tensors, padding, masks = recurrence(steps, symbols)
    found, expected = (
        function(*tensors, padding, masks if masked else None) for function in (attend_over_time, attend_step_by_step)
    )
    cotangents = [torch.randn_like(each) for each in expected]
    gradients = (torch.autograd.grad(each, tensors, cotangents, allow_unused=True) for each in (found, expected))
    for ours, plain in [*zip(found, expected, strict=True), *zip(*gradients, strict=True)]:
        assert (ours - plain).abs().max() <= 3e-13 * plain.abs().max()


def test_a_text_that_is_all_padding_gives_numbers():
    """Where its attention goes means nothing, but it must not reach the other clips of the batch as nan."""
    tensors, padding, masks = recurrence()
    padding[1] = True
    found = attend_over_time(*tensors, padding, masks)
    gradients = torch.autograd.grad(found, tensors, [torch.ones_like(each) for each in found])
    assert all(each.isfinite().all() for each in (*found, *gradients))
    assert torch.allclose(found[1].sum(2), torch.ones(5, 2, dtype=torch.double))


def test_nothing_is_kept_for_a_gradient_that_nobody_asks_for(monkeypatch):
    """Of every frame and symbol the activations of all channels: the most memory that training takes."""
    tensors, padding, masks = recurrence(steps=50)
    made = []
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda *size, **how: made.append(new_empty(*size, **how)) or made[-1]
    )

    def largest(*tensors):
        made.clear()
        attend_over_time(*tensors, padding, masks)
        return max((tensor.numel() for tensor in made), default=0)

    activations = 50 * tensors[3].numel()
    assert largest(*tensors) >= activations
    assert largest(*(each.detach() for each in tensors)) < activations
    with torch.no_grad():
        assert largest(*tensors) < activations


def test_the_gradient_of_attention():
    tensors, padding, masks = recurrence(steps=3)
    assert torch.autograd.gradcheck(lambda *given: attend_over_time(*given, padding, masks), tensors)


def test_attention_in_half_precision_follows_float64():
    tensors, padding, masks = recurrence(steps=20)
    exact = attend_over_time(*tensors, padding, masks)
    half = {0, 6}  # the known gates and the values
    rounded = [each.detach().to(torch.bfloat16 if i in half else torch.float32) for i, each in enumerate(tensors)]
    rounded = [each.requires_grad_() for each in rounded]
    found = attend_over_time(*rounded, padding, masks.bfloat16())
    assert [each.dtype for each in found] == [torch.bfloat16, torch.float32]
    cotangents = [torch.randn_like(each) for each in exact]
    of_exact = torch.autograd.grad(exact, tensors, cotangents)
    of_found = torch.autograd.grad(found, rounded, [c.to(each.dtype) for c, each in zip(cotangents, found)])
    assert [each.dtype for each in of_found] == [each.dtype for each in rounded]
    for ours, plain in [*zip(found, exact, strict=True), *zip(of_found, of_exact, strict=True)]:
        assert 0 < (ours - plain).norm() < 0.05 * plain.norm()


@needs_float16
def test_small_gradients_of_the_location_survive_float16():
    """It has no numbers below 6e-8, and float32 has them."""
    tensors, padding, masks = recurrence(steps=20)
    half = {0, 6}
    rounded = [each.detach().to(torch.float16 if i in half else torch.float32) for i, each in enumerate(tensors)]
    kernel = rounded[4].requires_grad_()
    _, weights = attend_over_time(*rounded, padding, masks.half())
    cotangent = torch.randn_like(weights)
    large, small = (
        torch.autograd.grad(weights, kernel, scale * cotangent, retain_graph=True)[0] for scale in (1, 2**-24)
    )
    assert (large - 2**24 * small).norm() <= 0.1 * large.norm()  # those of the gates are lost


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


def plain_forward(self, values, padding, mel):
    """``Decoder.forward`` by the steps of inference."""
    memory = self.attention_layer.prepare(values, padding)
    linears = [partial(F.linear, weight=layer.weight, bias=layer.bias) for layer in self.frame_by_frame(values.dtype)]
    states = [type(state)(*(each.to(mel.dtype) for each in state)) for state in self.initial_state(values)]
    masks = [1.0] * len(self.prenet.layers)
    steps = []
    for frame in F.pad(mel, (1, -1)).unbind(2):
        *outputs, attention, decoder = self.step(frame, masks, *states, memory, values, linears)
        states = attention, decoder
        steps.append((*outputs, attention.weights[:, 0]))
    mel, gate, alignments = (torch.stack(each, dim=1) for each in zip(*steps, strict=True))
    return Decoded(mel.transpose(1, 2), gate, alignments)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 5e-4)])
def test_the_model_has_the_gradients_of_plain_autograd(monkeypatch, dtype, tolerance):
    """In float64 but for rounding; in float32 one rounding of the query's weight already moves a gradient of 5 by
    9e-5."""
    if dtype == torch.float64:
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # what is float32 in any precision
    network = training_toy().to(dtype)
    text, text_lengths, mel, mel_lengths = toy_batch()
    batch = text, text_lengths, mel.to(dtype), mel_lengths
    loss_of(network, batch).backward()
    ours = gradients(network)
    assert all(gradient.abs().max() > 0 for gradient in ours.values())
    network.zero_grad()
    monkeypatch.setattr(Decoder, "forward", plain_forward)
    monkeypatch.setattr(model, "lstm_over_time", step_by_step)
    loss_of(network, batch).backward()
    assert difference(ours, gradients(network)) < tolerance


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

    def twice():
        wrapped = DistributedDataParallel(network)
        with wrapped.no_sync():
            loss_of(wrapped).backward()
        loss_of(wrapped).backward()

    in_a_group(tmp_path, twice)
    assert difference({name: 2 * gradient for name, gradient in alone.items()}, gradients(network)) < 1e-6


@pytest.mark.parametrize("backward", [True, False])
def test_nothing_outlives_the_loss(backward, monkeypatch):
    seen = []

    def watch(known):
        room = make_room(known)
        seen.extend(weakref.ref(each) for each in room)
        return room

    make_room = attention_recurrence.room_for_gates_and_cells
    monkeypatch.setattr(attention_recurrence, "room_for_gates_and_cells", watch)
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


def test_without_gradients_nothing_is_kept_for_them(monkeypatch):
    kept = []

    def watch(*args):
        kept.append(args[-1])
        return apply(*args)

    apply = attention_recurrence._AttendOverTime.apply
    monkeypatch.setattr(attention_recurrence._AttendOverTime, "apply", watch)
    network = training_toy()
    loss_of(network)
    with torch.no_grad():
        loss_of(network)
    loss_of(network.requires_grad_(False))
    assert kept == [True, False, False]


def test_the_decoder_learns_from_the_refined_frames_too():
    """By way of the postnet: the gradient is that of the sum of the frames and what the postnet adds to them."""
    text, text_lengths, mel, mel_lengths = toy_batch()
    model = toy(p_prenet_dropout=0.0, mask_padding=False)
    learned = model.decoder.linear_projection.linear_layer.weight
    decoded, refined, _, _ = model(text, text_lengths, mel, mel_lengths)
    cotangent = torch.randn_like(refined)
    (found,) = torch.autograd.grad(refined, learned, cotangent, retain_graph=True)
    (of_frames,) = torch.autograd.grad(decoded, learned, cotangent, retain_graph=True)
    (expected,) = torch.autograd.grad(decoded + model.postnet(decoded), learned, cotangent)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (found - of_frames).abs().max() > 0.01 * expected.abs().max()
