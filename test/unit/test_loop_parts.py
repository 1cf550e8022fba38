"""The parts of the training loop: rate, ends and counts; what of them is logged, validated and saved."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from small_runs import small_run

from common import distributed
from common.checkpoints.progress import Progress
from common.device import pick_device
from common.program import UserError
from common.training import loop
from common.training.run import Run
from runs import make_run

CPU = pick_device("cpu")


def cosine(left, steps):
    return 0.5 - 0.5 * math.cos(math.pi * left / steps)


@pytest.mark.parametrize(
    ("settings", "epoch", "steps", "left", "expected"),
    [
        ({}, 0, 0, 100, 1),
        ({"anneal_epochs": [3, 5]}, 2, 50, 100, 1),
        ({"anneal_epochs": [3, 5]}, 3, 50, 100, 0.1),
        ({"anneal_epochs": [5, 3]}, 5, 50, 100, 0.01),
        ({"warmup_steps": 4}, 0, 0, 100, 0.25),
        ({"warmup_steps": 4}, 0, 2, 100, 0.75),
        ({"warmup_steps": 4}, 0, 3, 100, 1),
        ({"warmup_steps": 4}, 0, 4, 100, 1),
        ({"decay_steps": 10}, 0, 50, 11, 1),
        ({"decay_steps": 10}, 0, 50, 10, 1),
        ({"decay_steps": 10}, 0, 51, 9, cosine(9, 10)),
        ({"decay_steps": 10}, 0, 59, 1, cosine(1, 10)),
        ({"decay_steps": 100}, 0, 5, 15, cosine(15, 20)),  # longer than the run
        ({"decay_steps": 10, "warmup_steps": 10, "anneal_epochs": [1]}, 1, 5, 5, 0.1 * 0.6 * cosine(5, 10)),
    ],
)
def test_the_rate_follows_from_epoch_and_steps_done_and_left(settings, epoch, steps, left, expected):
    """The steps are those of this run, without those that it was finetuned from; all groups have the rate."""
    progress = Progress(iteration=1000 + steps, first_iteration=1000, epoch=epoch)
    run = small_run(progress, learning_rate=0.5, **settings)
    loop.set_learning_rate(run, left)
    assert [group["lr"] for group in run.optimizer.param_groups] == [pytest.approx(0.5 * expected)] * 2


@pytest.mark.parametrize(
    ("epochs", "max_steps", "epoch", "clips", "steps", "left"),
    [
        (3, 0, 0, 0, 0, 15),
        (3, 0, 1, 8, 7, 8),
        (3, 0, 2, 16, 14, 1),
        (3, 0, 3, 0, 15, 0),
        (3, 10, 1, 8, 7, 3),
        (3, 10, 1, 20, 10, 0),
        (3, 1, 0, 0, 0, 1),
        (3, 1, 0, 4, 1, 0),
        (3, 16, 2, 16, 14, 1),
        (2, 10, 3, 0, 15, -5),  # a resumed run with fewer epochs
        (3, 4, 1, 8, 7, -3),
    ],
)
def test_a_run_ends_with_its_epochs_or_steps_whichever_comes_first(epochs, max_steps, epoch, clips, steps, left):
    """Of 22 clips and 4 in a step an epoch has 5 steps."""
    progress = Progress(iteration=100 + steps, first_iteration=100, epoch=epoch, clips=clips)
    run = small_run(progress, epochs=epochs, max_steps=max_steps)
    assert loop.steps_left(run, SimpleNamespace(clips_per_epoch=22), 4) == left
    assert loop.is_finished(run) == (left <= 0)


@pytest.mark.parametrize(
    ("clips", "is_done"), [(0, False), (17, False), (18, False), (19, True), (20, True), (22, True)]
)
def test_an_epoch_is_done_when_too_few_clips_are_left_for_a_step(clips, is_done):
    run = small_run(Progress(epoch=3, clips=clips))
    assert loop.next_epoch_if_done(run, SimpleNamespace(clips_per_epoch=22), 4) == is_done
    assert (run.progress.epoch, run.progress.clips) == ((4, 0) if is_done else (3, clips))


def test_throughput_leaves_the_warm_up_out():
    """Five steps, of which the first may compile; but a run of no more has nothing else."""
    assert loop.throughput([9.0] * 5 + [1.5] + [0.5] * 7, clips_per_step=4) == pytest.approx(4 * 8 / 5)
    assert loop.throughput([9.0] * 5 + [1.0], clips_per_step=4) == pytest.approx(4.0)
    assert loop.throughput([9.0] + [1.0] * 4, clips_per_step=4) == pytest.approx(4 * 5 / 13)
    assert loop.throughput([2.0] * 3, clips_per_step=4) == pytest.approx(2.0)
    assert math.isnan(loop.throughput([], clips_per_step=4))


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps", "left"), [(3, 0, 15, 15), (3, 4, 4, 2), (3, 15, 15, 13), (3, 18, 15, 15)]
)
def test_the_bar_goes_to_the_end_of_the_run(config, tmp_path, monkeypatch, epochs, max_steps, steps, left):
    """From the steps of this run, however many those had that it was finetuned from."""
    bars = []
    monkeypatch.setattr(loop, "progress_bar", lambda *args: bars.append(args))
    run = make_run(config[1], tmp_path, epochs=epochs, max_steps=max_steps)
    run.progress.iteration, run.progress.first_iteration = 102, 100
    loop.make_bar(run, 5)
    assert bars == [("training", steps, 2)]
    assert loop.steps_left(run, SimpleNamespace(clips_per_epoch=23), 4) == left


def test_a_step_is_counted_and_shown(caplog):
    caplog.set_level(logging.DEBUG)
    run = small_run(Progress(iteration=6, first_iteration=4, clips=8, losses=[3.0]))
    shown, written = [], []
    bar = SimpleNamespace(update=lambda: shown.append("step"), set_postfix=lambda **values: shown.append(values))
    board = SimpleNamespace(write=lambda *action: written.append(action))
    loop.note_step(run, 0.123456789, 2.5, 4, board, bar)
    assert (run.progress.iteration, run.progress.clips, run.progress.losses) == (7, 12, [3.0, 0.123456789])
    assert shown == ["step", {"loss": "0.123"}]
    assert written == [(loop.SummaryWriter.add_scalar, "loss/training", 0.123456789, 7)]
    assert "7:\tloss:0.123456789\ttime:2.500000000\t" in caplog.text  # as the Ascend port's scripts look for it


def test_skipped_steps_are_said_by_each_process_and_the_end_names_the_clips_of_all(monkeypatch, caplog):
    run = small_run(Progress(iteration=7))
    batches = [{"names": ["a", "b"]}, {"names": ["c"]}]
    loop.report_skip(run, batches, math.nan, 3)
    assert "iteration 7: loss nan " in caplog.text and "(3 in a row); clips: a, b, c" in caplog.text
    monkeypatch.setattr(distributed, "gather_objects", lambda ours: [ours, ["d"]])
    with pytest.raises(UserError, match=r"not finite in 10 steps in a row, up to iteration 7; clips .* a, b, c, d;"):
        loop.give_up(run, batches)


@pytest.mark.parametrize("is_averaged", [True, False])
def test_a_validation_is_of_the_average_without_gradients_and_with_the_first_ranks_statistics(
    monkeypatch, caplog, is_averaged
):
    caplog.set_level(logging.INFO)
    run = small_run(Progress(iteration=7, first_iteration=2, validation_losses=[(3, 0.5)]))
    run.average.weights["0.bias"][:] = 5
    own = run.model[0].bias.clone()
    if not is_averaged:
        run.average = None
    seen, written = [], []

    def look(what):
        seen.append(what)
        assert not run.model.training and not torch.is_grad_enabled()
        assert torch.equal(run.model[0].bias, torch.full((2,), 5.0) if is_averaged else own)

    task = SimpleNamespace(validate=lambda: look("validate") or 0.25, show="show")
    monkeypatch.setattr(distributed, "share_buffers", lambda model: look("share") if model is run.model else None)
    board = SimpleNamespace(write=lambda *action: written.append(action) or look("write"))
    loop.validate(run, task, board)
    assert seen == ["share", "validate", "write", "write"]
    assert run.progress.validation_losses == [(3, 0.5), (7, 0.25)]
    assert written == [(loop.SummaryWriter.add_scalar, "loss/validation", 0.25, 7), ("show", 7)]
    assert run.model.training and torch.is_grad_enabled() and torch.equal(run.model[0].bias, own)
    assert "iteration 7: validation loss:0.250000" in caplog.text


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_saves_for_all(monkeypatch, rank):
    """With the random states of every one, and the last validation's loss."""
    run = small_run(Progress(iteration=7, validation_losses=[(3, 0.5), (6, 0.25)]))
    monkeypatch.setattr(Run, "state", lambda self, states: {"states": states})
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [own, "theirs"])
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(rank, 2, rank))
    monkeypatch.setattr(loop, "rng_state", lambda device: f"states on {device.type}")
    asked = []
    loop.save(run, SimpleNamespace(save=lambda *args: asked.append(args)))
    assert asked == ([(run.path(), {"states": ["states on cpu", "theirs"]}, 0.25)] if rank == 0 else [])


def test_a_saver_keeps_as_many_as_configured_and_fails_as_configured(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "saved", lambda self: ["before"])
    run = small_run(output_directory=str(tmp_path), keep_checkpoints=7, on_save_error="continue")
    saver = loop.make_saver(run)
    assert (saver.keep, saver.on_error, saver.saved) == (7, "continue", ["before"])
