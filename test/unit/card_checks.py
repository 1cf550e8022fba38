"""What test_on_cuda.py asks of a card and test_any_device.py of the CPU, and how waiting for a card is counted."""

import warnings

import pytest
import torch
from tacotron2_toys import toy, toy_batch

from common.program import StopSignal
from common.training import loop
from conftest import toy_config, toy_tacotron2_config
from runs import PACKAGES, in_a_group, make_run, start, weights
from tacotron2 import recorded_steps
from tacotron2.recorded_steps import RecordedSteps

MODELS = {"waveglow": toy_config(), "tacotron2": toy_tacotron2_config()}
each_model = pytest.mark.parametrize("name", MODELS)


def check_a_process_alone_in_its_group_learns_the_same(name, device, corpus, folder):
    def losses(output):
        # Nothing else is kept: a DistributedDataParallel must not outlive the group.
        return start(MODELS[name], corpus, folder / output, device=device, max_steps=5)[0].progress.losses

    alone = losses("alone")
    assert in_a_group(folder, lambda: losses("in a group"), device.backend) == pytest.approx(alone, rel=1e-4)


def check_a_loss_scale_comes_down(level, device, corpus, folder):
    """Steps that overflow change nothing and halve it, until one is as it would have been from the start."""
    run = make_run(MODELS["waveglow"], folder / "run", device, amp=level, loss_scale="dynamic")
    exact = make_run(MODELS["waveglow"], folder / "exact", device, amp="O0")
    task = PACKAGES["waveglow"].train.make_task(run, str(corpus))
    batches = task.batches(0, 0)
    batch, before = next(batches), weights(run).clone()
    batches.close()

    def step(one):
        criterion = PACKAGES["waveglow"].train.make_task(one, str(corpus)).loss
        return loop.step(one, criterion, one.model, [batch], StopSignal(), lambda *_, **__: None)[1]

    run.precision.scale, skipped = 2.0**60, 0
    while not step(run):
        skipped += 1
        assert torch.equal(weights(run), before) and run.precision.scale == 2.0 ** (60 - skipped)
    assert 0 < skipped < 60 and step(exact)
    change = weights(exact) - before
    # Adam's first step is as large for small gradients, whose sign half precision may miss.
    assert (weights(run) - weights(exact)).norm() < 0.2 * change.norm()


def check_recorded_decoding_is_the_plain_one(device, monkeypatch):
    model = endless_toy(steps=80).to(device.torch_device)
    text, lengths = (each.to(device.torch_device) for each in toy_batch()[:2])
    record, recordings = recorded_steps.recorded, []
    monkeypatch.setattr(recorded_steps, "recorded", lambda work, card: recordings.append(work) or record(work, card))
    make_steps = RecordedSteps(model.decoder)
    for seeds in ([1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]):
        with_graphs = model.infer(text, lengths, seeds, make_steps)
        for ours, plain in zip(with_graphs, model.infer(text, lengths, seeds), strict=True):
            assert ours.length == plain.length == 80
            for a, b in ((ours.mel, plain.mel), (ours.alignment, plain.alignment), (ours.gate, plain.gate)):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(recordings) == (1 if device.type == "cuda" else 0)


def endless_toy(steps):
    """A Tacotron2 that speaks so many frames."""
    model = toy(max_decoder_steps=steps)
    model.decoder.gate_threshold = 2.0
    return model


def waits_of(work):
    """How often the host waits for the card meanwhile, as PyTorch tells it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(each.message) for each in told)


def waits_of_steps(name, level, device, corpus, folder, monkeypatch):
    """Those of each step of a training; batches are not loaded in a step."""
    waits, step = [], loop.step

    def counted(*given):
        outcome = []
        waits.append(waits_of(lambda: outcome.append(step(*given))))
        return outcome[0]

    monkeypatch.setattr(loop, "step", counted)
    start(MODELS[name], corpus, folder, device=device, max_steps=6, amp=level)
    return waits


def waits_of_decoding(steps, device):
    """Those of as many frames, spoken for the second time."""
    model = endless_toy(steps).to(device.torch_device)
    text, lengths = (each.to(device.torch_device) for each in toy_batch()[:2])
    make_steps = RecordedSteps(model.decoder)
    speak = lambda: model.infer(text, lengths, [1, 2, 3, 4], make_steps)  # noqa: E731
    speak()
    return waits_of(speak)
