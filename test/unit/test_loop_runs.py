"""The training loop with stand-ins for its parts: which batches it takes, when it calls what, how it ends."""

import logging
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from small_runs import small_run

from common import distributed
from common.checkpoints.progress import Progress
from common.training import loop


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
    run = small_run(progress, iters_per_validation=100, iters_per_checkpoint=100, **settings)
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
    run = small_run(Progress(5, 5, epoch=0, clips=8, validation_losses=[(5, 1.0)]), **settings)
    _, calls = trained(monkeypatch, run, lambda calls: task, step=step)
    assert begun == [(1, 0)] and calls[0] == ("validate", 5)


@pytest.mark.parametrize(("max_steps", "is_stopped"), [(3, True), (2, False)])
def test_a_run_that_is_asked_to_stop_is_saved_and_ends(tmp_path, monkeypatch, max_steps, is_stopped):
    """With the last step it is asked too late: then it is finished, and validated."""
    task = SimpleNamespace(batches=lambda *_: iter_of(100), clips_per_epoch=400, samples_per_clip=1, loss=None)
    settings = dict(batch_size=4, output_directory=str(tmp_path), with_tensorboard=False, iters_per_checkpoint=100)
    outcomes = iter([(0.5, True, False), (0.5, True, True)])
    progress = Progress(7, 7, validation_losses=[(7, 1.0)])
    run = small_run(progress, iters_per_validation=100, max_steps=max_steps, **settings)
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
    run = small_run(Progress(validation_losses=[(0, 1.0)]), batch_size=4, **settings)
    trained(monkeypatch, run, lambda calls: task, step=lambda *_: (0.5, True, False))
    assert folders == [f"{tmp_path}{folder}" if wanted else ""]
    assert written == [loop.SummaryWriter.add_scalar] * 2 + ["closed", loop.SummaryWriter.close]


def test_a_loss_that_stays_infinite_ends_the_run_after_ten_steps_and_a_checkpoint(tmp_path, monkeypatch):
    task = SimpleNamespace(batches=lambda *_: iter_of(100), clips_per_epoch=400, samples_per_clip=1, loss=None)
    settings = dict(batch_size=4, output_directory=str(tmp_path), with_tensorboard=False, max_steps=25)
    finite = iter([False] * 9 + [True] + [False] * 10 + [True] * 5)
    run = small_run(
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
    run = small_run(Progress(validation_losses=[(0, 1.0)]), batch_size=4, **settings)
    trained(monkeypatch, run, lambda calls: task, step=lambda *_: (0.5, True, False))
    assert asked == ([(own, run.config.train_config, run.device, run.crossings)] if profile else [])


def iter_of(count):
    yield from range(count)
