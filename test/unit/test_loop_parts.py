"""The parts of the training loop: rate, ends and counts; what of them is logged, validated and saved."""

import logging
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common import distributed
from common.checkpoints.progress import Progress
from common.config import TrainConfig
from common.device import pick_device
from common.precision import Precision
from common.program import UserError
from common.training import loop
from common.training.averaging import WeightAverage
from common.training.run import Run

CPU = pick_device("cpu")


def made(progress=None, **settings) -> Run:
    """A run of a model with batch norm and two groups of weights."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    precision = Precision("O0", 1.0, CPU, model)
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model], lr=1.0)
    config = SimpleNamespace(train_config=TrainConfig(**settings))
    average = WeightAverage(0.5, model, precision)
    return Run("toy", config, CPU, model, precision, optimizer, average, progress=progress or Progress())


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
    run = made(progress, learning_rate=0.5, **settings)
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
    run = made(progress, epochs=epochs, max_steps=max_steps)
    assert loop.steps_left(run, SimpleNamespace(clips_per_epoch=22), 4) == left
    assert loop.is_finished(run) == (left <= 0)


@pytest.mark.parametrize(
    ("clips", "is_done"), [(0, False), (17, False), (18, False), (19, True), (20, True), (22, True)]
)
def test_an_epoch_is_done_when_too_few_clips_are_left_for_a_step(clips, is_done):
    run = made(Progress(epoch=3, clips=clips))
    assert loop.next_epoch_if_done(run, SimpleNamespace(clips_per_epoch=22), 4) == is_done
    assert (run.progress.epoch, run.progress.clips) == ((4, 0) if is_done else (3, clips))


def test_a_step_is_counted_and_shown(caplog):
    caplog.set_level(logging.DEBUG)
    run = made(Progress(iteration=6, first_iteration=4, clips=8, losses=[3.0]))
    shown, written = [], []
    bar = SimpleNamespace(update=lambda: shown.append("step"), set_postfix=lambda **values: shown.append(values))
    board = SimpleNamespace(write=lambda *action: written.append(action))
    loop.note_step(run, 0.123456789, 2.5, 4, board, bar)
    assert (run.progress.iteration, run.progress.clips, run.progress.losses) == (7, 12, [3.0, 0.123456789])
    assert shown == ["step", {"loss": "0.123"}]
    assert written == [(loop.SummaryWriter.add_scalar, "loss/training", 0.123456789, 7)]
    assert "7:\tloss:0.123456789\ttime:2.500000000\t" in caplog.text  # as the Ascend port's scripts look for it


def test_skipped_steps_are_said_by_each_process_and_the_end_names_the_clips_of_all(monkeypatch, caplog):
    run = made(Progress(iteration=7))
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
    run = made(Progress(iteration=7, first_iteration=2, validation_losses=[(3, 0.5)]))
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
    run = made(Progress(iteration=7, validation_losses=[(3, 0.5), (6, 0.25)]))
    monkeypatch.setattr(Run, "state", lambda self, states: {"states": states})
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [own, "theirs"])
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(rank, 2, rank))
    monkeypatch.setattr(loop, "rng_state", lambda device: f"states on {device.type}")
    asked = []
    loop.save(run, SimpleNamespace(save=lambda *args: asked.append(args)))
    assert asked == ([(run.path(), {"states": ["states on cpu", "theirs"]}, 0.25)] if rank == 0 else [])


def test_a_saver_keeps_as_many_as_configured_and_fails_as_configured(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "saved", lambda self: ["before"])
    run = made(output_directory=str(tmp_path), keep_checkpoints=7, on_save_error="continue")
    saver = loop.make_saver(run)
    assert (saver.keep, saver.on_error, saver.saved) == (7, "continue", ["before"])


def trained(monkeypatch, run, task_of, **names):
    """What ``train`` returns with its parts replaced, and the calls of them in their order."""
    calls = []
    watchdog = SimpleNamespace(beat=lambda *_, **__: None)
    monkeypatch.setattr(loop, "Watchdog", lambda limit: nullcontext(watchdog))
    for name in ("validate", "agree_on_weights", "save", "give_up"):
        monkeypatch.setattr(loop, name, lambda *args, name=name: calls.append((name, run.progress.iteration)))
    for name, value in names.items():
        monkeypatch.setattr(loop, name, value)
    summary = loop.train(run, task_of(calls), SimpleNamespace(requested=0))
    return summary, calls


@pytest.mark.parametrize(("world_size", "first", "steps"), [(1, (1, 8), 4), (2, (2, 0), 1)])
def test_a_run_takes_its_batches_from_where_it_was_and_closes_them(
    tmp_path, monkeypatch, caplog, world_size, first, steps
):
    """As many to a step as are accumulated; an epoch of 13 clips has 3 steps of one process or one of two."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(0, world_size, 0))
    monkeypatch.setattr(distributed, "wrap", lambda model, device: ("wrapped", model, device))

    def task_of(calls):
        def batches(epoch, clips):
            calls.append(("batches", epoch, clips))
            try:
                yield from range(100)
            finally:
                calls.append(("closed",))

        return SimpleNamespace(batches=batches, clips_per_epoch=13, samples_per_clip=10, loss="loss")

    taken = []

    def step(run, loss, model, batches, stop, beat):
        assert (loss, model) == ("loss", ("wrapped", run.model, run.device))
        taken.append(batches)
        return 0.5, True, False

    settings = dict(batch_size=2, grad_accumulation=2, epochs=3, output_directory=str(tmp_path), with_tensorboard=False)
    progress = Progress(iteration=15, first_iteration=10, epoch=1, clips=8, validation_losses=[(10, 1.0), (15, 0.75)])
    run = made(progress, iters_per_validation=100, iters_per_checkpoint=100, **settings)
    summary, calls = trained(monkeypatch, run, task_of, step=step, throughput=lambda seconds, clips: 8.0 * clips)
    assert taken == [[2 * i, 2 * i + 1] for i in range(steps)]
    assert calls[0] == ("batches", *first) and calls[-1] == ("closed",)
    end = [(name, 15 + steps) for name in ("validate", "agree_on_weights", "save")]
    assert calls[1:-1] == end  # not at the beginning, which is none
    assert (run.progress.epoch, run.progress.clips, run.progress.iteration) == (3, 0, 15 + steps)
    clips = 4 * world_size
    assert summary == loop.Summary(15 + steps, 0.75, 8.0 * clips, 80.0 * clips, 1 / 8.0, stopped=False)
    said = [message for message in caplog.messages if "FPS" in message]  # as the Ascend port's scripts look for it
    assert said == [f"Epoch {epoch} FPS:{8.0 * clips:.9f}" for epoch in range(first[0], 3)]


def test_a_run_that_was_left_at_the_end_of_an_epoch_goes_on_with_the_next(tmp_path, monkeypatch):
    """And one that has made no step is validated first."""
    begun = []

    def batches(epoch, clips):
        begun.append((epoch, clips))
        yield from range(100)

    task = SimpleNamespace(batches=batches, clips_per_epoch=10, samples_per_clip=1, loss=None)
    settings = dict(batch_size=4, output_directory=str(tmp_path), with_tensorboard=False, max_steps=1)
    step = lambda *_: (0.5, True, False)  # noqa: E731
    run = made(Progress(5, 5, epoch=0, clips=8, validation_losses=[(5, 1.0)]), **settings)
    _, calls = trained(monkeypatch, run, lambda calls: task, step=step)
    assert begun == [(1, 0)] and calls[0] == ("validate", 5)


@pytest.mark.parametrize(("max_steps", "is_stopped"), [(3, True), (2, False)])
def test_a_run_that_is_asked_to_stop_is_saved_and_ends(tmp_path, monkeypatch, max_steps, is_stopped):
    """With the last step it is asked too late: then it is finished, and validated."""
    task = SimpleNamespace(batches=lambda *_: iter_of(100), clips_per_epoch=400, samples_per_clip=1, loss=None)
    settings = dict(batch_size=4, output_directory=str(tmp_path), with_tensorboard=False, iters_per_checkpoint=100)
    outcomes = iter([(0.5, True, False), (0.5, True, True)])
    progress = Progress(7, 7, validation_losses=[(7, 1.0)])
    run = made(progress, iters_per_validation=100, max_steps=max_steps, **settings)
    summary, calls = trained(monkeypatch, run, lambda calls: task, step=lambda *_: next(outcomes))
    assert (summary.iteration, summary.stopped) == (9, is_stopped)
    last = [] if is_stopped else [("validate", 9)]
    assert calls == [("validate", 7), *last, ("agree_on_weights", 9), ("save", 9)]


@pytest.mark.parametrize(("wanted", "folder"), [(True, "/out/logs"), (False, "")])
def test_tensorboards_logs_are_beside_the_checkpoints_and_closed_in_the_end(monkeypatch, tmp_path, wanted, folder):
    """When the batches, and with them a profile, have come to theirs."""
    folders, written = [], []

    def batches(epoch, clips):
        try:
            yield from range(9)
        finally:
            written.append("closed")

    board = SimpleNamespace(write=lambda action, *args: written.append(action))
    monkeypatch.setattr(loop, "TensorBoard", lambda place: folders.append(place) or board)
    task = SimpleNamespace(batches=batches, clips_per_epoch=400, samples_per_clip=1, loss=None)
    settings = dict(output_directory=f"{tmp_path}/out", with_tensorboard=wanted, max_steps=2)
    run = made(Progress(validation_losses=[(0, 1.0)]), batch_size=4, **settings)
    trained(monkeypatch, run, lambda calls: task, step=lambda *_: (0.5, True, False))
    assert folders == [f"{tmp_path}{folder}" if wanted else ""]
    assert written == [loop.SummaryWriter.add_scalar] * 2 + ["closed", loop.SummaryWriter.close]


def test_a_loss_that_stays_infinite_ends_the_run_after_ten_steps_and_a_checkpoint(tmp_path, monkeypatch):
    task = SimpleNamespace(batches=lambda *_: iter_of(100), clips_per_epoch=400, samples_per_clip=1, loss=None)
    settings = dict(batch_size=4, output_directory=str(tmp_path), with_tensorboard=False, max_steps=25)
    finite = iter([False] * 9 + [True] + [False] * 10 + [True] * 5)
    run = made(
        Progress(0, 0, validation_losses=[(0, 1.0)]), iters_per_validation=100, iters_per_checkpoint=100, **settings
    )
    reported = []
    _, calls = trained(
        monkeypatch, run, lambda calls: task, step=lambda *_: (math.inf, next(finite), False),
        report_skip=lambda run, batches, loss, in_a_row: reported.append(in_a_row),
    )  # fmt: skip
    assert reported == [*range(1, 10), *range(1, 11)]
    given_up = [("agree_on_weights", 20), ("save", 20), ("give_up", 20)]
    assert calls[:4] == [("validate", 0), *given_up]


@pytest.mark.parametrize("profile", [0, 3])
def test_every_process_profiles_what_it_does_where_that_is_asked(tmp_path, monkeypatch, profile):
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(1, 2, 1))
    monkeypatch.setattr(distributed, "wrap", lambda model, device: model)
    asked, own = [], iter_of(9)
    monkeypatch.setattr(loop, "profiled", lambda *args: asked.append(args) or args[0])
    task = SimpleNamespace(batches=lambda *_: own, clips_per_epoch=400, samples_per_clip=1, loss=None)
    settings = dict(output_directory=str(tmp_path), max_steps=2, profile=profile)
    run = made(Progress(validation_losses=[(0, 1.0)]), batch_size=4, **settings)
    trained(monkeypatch, run, lambda calls: task, step=lambda *_: (0.5, True, False))
    assert asked == ([(own, run.config.train_config, run.device, run.crossings)] if profile else [])


def iter_of(count):
    yield from range(count)
