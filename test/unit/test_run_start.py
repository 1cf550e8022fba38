"""Where a run starts from: which checkpoint of whom it takes, and what it takes of it."""

import logging
import os
import time
from dataclasses import asdict, replace

import pytest
import torch

from common import distributed
from common.checkpoints import native
from common.checkpoints.progress import Progress
from common.program import UserError
from common.random_numbers import rng_state
from common.training import run as runs_module
from common.training.run import check_same_training, checked_rng_state
from conftest import toy_config
from runs import CPU, make_run, model_of, same, start
from waveglow.config import Config


def saved(folder, iteration, shift=0.0, **fields):
    """A checkpoint of a run that has made no step, its weights shifted."""
    run = make_run(toy_config(), folder)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter += shift
    run.progress = Progress(iteration=iteration, **fields)
    native.save(run.path(), run.state([rng_state(CPU)]))
    return run


def begun(folder, resume="auto", **changes):
    run = make_run(toy_config(), folder, **changes)
    run.start(resume)
    return run


@pytest.mark.parametrize(
    "order",
    [
        [dict(iteration=3, run=1), dict(iteration=5, run=1), dict(iteration=4, run=2)],
        [dict(iteration=5, run=1, started=9.0), dict(iteration=3, run=2, started=1.0)],  # clocks may be set back
        [dict(iteration=5, started=1.0), dict(iteration=3, started=9.0), dict(iteration=2, run=1, started=0.0)],
        [
            dict(iteration=9, run=5, case="perf"),
            dict(iteration=8, run=6, finetuned_from="/a"),
            dict(iteration=10, run=1),
        ],
        [dict(iteration=2, run=1, first_iteration=2), dict(iteration=10, run=1, first_iteration=2)],
    ],
)
def test_auto_goes_on_with_the_last_of_these(tmp_path, order):
    """Of the run with the highest number, or begun last where runs had none; of its iterations the highest."""
    for shift, fields in enumerate(order, start=1):
        saved(tmp_path, shift=float(shift), **fields)
    run = begun(tmp_path)
    expected = Progress(**order[-1])
    assert (run.progress.iteration, run.progress.run) == (expected.iteration, expected.run)
    assert same(model_of(run), native.load(run.path())["model"])


@pytest.mark.parametrize("set_back", [3600, 10**9])
def test_a_clock_set_back_changes_nothing(config, corpus, tmp_path, monkeypatch, set_back):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=4)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - set_back)
    later, _ = start(config[1], corpus, out, resume="no", max_steps=2, learning_rate=1e-4)
    os.utime(out / "waveglow_2", (0, 0))
    again = make_run(config[1], out, max_steps=3, learning_rate=1e-4)
    again.start("auto")
    assert again.progress.losses == later.progress.losses
    assert [saved.path.name for saved in again.saved()] == ["waveglow_2"]


def test_without_a_checkpoint_of_its_own_a_run_begins_with_the_next_number(tmp_path):
    fresh = make_run(toy_config(), tmp_path)
    for resume in ("auto", "no"):
        run = begun(tmp_path, resume)
        assert (run.progress.iteration, run.progress.run) == (0, 1)
    saved(tmp_path, 3, run=4, case="perf")
    saved(tmp_path, 4, run=2, finetuned_from="/elsewhere")
    for resume in ("auto", "no"):
        run = begun(tmp_path, resume)
        assert (run.progress.iteration, run.progress.run) == (0, 5)
        assert same(model_of(run), model_of(fresh))


def test_a_run_from_a_chosen_checkpoint_is_a_new_one_and_auto_the_same(tmp_path, monkeypatch):
    losses = dict(losses=[3.0, 2.0, 1.0], validation_losses=[(0, 3.5), (3, 1.5)])
    before = saved(tmp_path, 3, shift=1.0, run=2, started=7.0, epoch=1, clips=8, **losses)
    saved(tmp_path, 5, run=4, case="perf")
    monkeypatch.setattr(runs_module.time, "time", lambda: 99.0)
    run = begun(tmp_path, "auto")
    assert run.progress == before.progress
    run = begun(tmp_path, str(tmp_path / "waveglow_3"))
    assert run.progress == replace(before.progress, run=5, started=99.0)
    assert same(model_of(run), model_of(before))


@pytest.mark.parametrize(
    ("ours", "theirs", "holder", "number"),
    [
        ([], [((), 0), ((), 0)], 0, 1),
        ([dict(iteration=3, run=1)], [((), 0), ((), 0)], 0, 2),
        ([dict(iteration=3, run=1)], [((1, 5.0, 4), 1), ((), 0)], 1, 2),
        ([dict(iteration=3, run=1)], [((1, 5.0, 3), 1), ((1, 5.0, 3), 1)], 0, 2),
        ([dict(iteration=3, run=1)], [((1, 6.0, 2), 1), ((2, 0.0, 1), 2)], 2, 3),
        ([dict(iteration=3, run=1), dict(iteration=9, run=8, case="perf")], [((1, 5.0, 4), 1), ((), 6)], 1, 9),
        ([], [((), 7), ((1, 5.0, 4), 1)], 2, 8),
    ],
)
def test_of_several_machines_the_newest_checkpoint_counts(tmp_path, monkeypatch, caplog, ours, theirs, holder, number):
    """Whoever has it reads it for all, where the choice is free; a new run has a number above those of all."""
    caplog.set_level(logging.INFO)
    for fields in ours:
        saved(tmp_path, started=5.0, **fields)
    readers = []
    monkeypatch.setattr(runs_module, "ranks", lambda: distributed.Ranks(0, 3, 0))
    monkeypatch.setattr(runs_module, "gather_objects", lambda own: [own, *theirs])
    monkeypatch.setattr(runs_module, "first_ranks", lambda look, rank=0: readers.append(rank))
    for resume in ("auto", "no"):
        run = begun(tmp_path, resume)
        assert run.progress.run == number
    assert readers == [holder, 0]
    assert (f"on that of rank {holder}" in caplog.text) == (holder > 0)


@pytest.mark.parametrize(("rank", "looks"), [(1, False), (2, True)])
def test_each_machine_looks_at_its_disk_once(tmp_path, monkeypatch, rank, looks):
    """By its first process: of four, two on each."""
    saved(tmp_path, 3, run=6, started=5.0)
    told = []
    monkeypatch.setattr(runs_module, "ranks", lambda: distributed.Ranks(rank, 4, rank % 2))
    monkeypatch.setattr(runs_module, "gather_objects", lambda own: told.append(own) or [own])
    monkeypatch.setattr(runs_module, "first_ranks", lambda look, rank=0: None)
    begun(tmp_path)
    assert told == [((6, 5.0, 3), 6) if looks else ((), 0)]


def test_only_the_checkpoint_that_is_taken_is_read_as_a_whole(tmp_path, monkeypatch):
    """Of the others, which are large, no more than their progress; and the next one where it is damaged."""
    for iteration in (3, 4, 5):
        saved(tmp_path, iteration, run=1, started=5.0)
    read, load = [], native.load

    def noted(path, with_tensors=True):
        read.append((os.path.basename(path), with_tensors))
        if with_tensors and path == tmp_path / "waveglow_5":
            raise UserError("it is damaged")
        return load(path, with_tensors)

    monkeypatch.setattr(native, "load", noted)
    assert begun(tmp_path).progress.iteration == 4
    assert {name for name, with_tensors in read if not with_tensors} == {f"waveglow_{i}" for i in (3, 4, 5)}
    assert [name for name, with_tensors in read if with_tensors] == ["waveglow_5", "waveglow_4"]


# ---- what a checkpoint holds ----


def test_a_checkpoint_has_all_that_a_run_is(tmp_path):
    run = make_run(toy_config(), tmp_path, learning_rate=0.25)
    run.optimizer.param_groups[0]["lr"] = 0.125  # as in the last steps
    run.progress.iteration = 7
    state = run.state([{"cpu": 1}])
    assert state.keys() == {
        "model", "optimizer", "iteration", "learning_rate", "config", "progress", "precision", "rng_states"
    }  # fmt: skip
    assert (state["iteration"], state["learning_rate"], state["rng_states"]) == (7, 0.25, [{"cpu": 1}])
    assert state["config"] == asdict(run.config) and state["progress"] == vars(run.progress)
    assert state["precision"] == run.precision.state_dict()
    assert same(state["model"], model_of(run))
    assert run.path() == tmp_path / "waveglow_7"
    averaged = make_run(toy_config(), tmp_path, ema_decay=0.5)
    assert averaged.state([])["average"] is averaged.average.weights


def test_the_average_of_a_run_begins_with_its_first_weights(tmp_path):
    """Those of the checkpoint that it finetunes; a resumed one goes on."""
    origin = saved(tmp_path / "origin", 3, shift=1.0)
    tuning = {"ema_decay": 0.5, "checkpoint_path": str(origin.path())}
    run = begun(tmp_path / "out", **tuning)
    assert same(run.average.weights, model_of(origin)) and same(model_of(run), model_of(origin))
    run.average.weights["WN.0.start.bias"] += 1
    native.save(run.path(), run.state([rng_state(CPU)]))
    again = begun(tmp_path / "out", **tuning)
    assert same(again.average.weights, run.average.weights) and not same(again.average.weights, model_of(again))
    native.save(run.path(), {name: value for name, value in native.load(run.path()).items() if name != "average"})
    with pytest.raises(UserError, match="lacks the average of the weights that its run keeps: --checkpoint_path="):
        begun(tmp_path / "out", **tuning)


def test_finetuning_counts_on_from_the_file_and_is_a_run_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(runs_module.time, "time", lambda: 99.0)
    before = dict(epoch=4, clips=8, run=6, started=1.0, first_iteration=1, finetuned_from="/b", case="perf")
    losses = dict(losses=[3.0, 2.0], validation_losses=[(1, 3.5)])
    origin = saved(tmp_path / "origin", 3, **before, **losses)
    os.symlink(origin.path(), tmp_path / "link")
    run = begun(tmp_path / "out", checkpoint_path=str(tmp_path / "link"))
    path = str(tmp_path / "origin/waveglow_3")
    fields = vars(run.progress) | {"started": 0.0}
    assert fields == vars(Progress(3, 3, finetuned_from=path, run=1, started=0.0, **losses))
    foreign = dict(native.load(origin.path()))
    torch.save({"model": foreign["model"], "iteration": 5}, tmp_path / "foreign")
    run = begun(tmp_path / "out", checkpoint_path=str(tmp_path / "foreign"))
    assert (run.progress.iteration, run.progress.first_iteration, run.progress.losses) == (5, 5, [])
    run = begun(tmp_path / "out", checkpoint_path=str(tmp_path / "foreign"), ignore_layers=["WN.0.start"])
    assert (run.progress.iteration, run.progress.first_iteration) == (0, 0)
    with pytest.raises(UserError, match="keep_optimizer does not go with"):
        begun(tmp_path / "out", checkpoint_path=path, ignore_layers=["WN.0.start"], keep_optimizer=True)


@pytest.mark.parametrize("rng_states", [None, {}, "text", [None], [[]], [{"cpu": torch.get_rng_state()}, None]])
def test_random_states_are_an_object_for_each_rank(rng_states):
    with pytest.raises(UserError, match=r"^a: its rng_states are .*, must be a list with an object for each rank$"):
        checked_rng_state("a", rng_states)


@pytest.mark.parametrize(
    "state",
    [{}, {"cpu": None}, {"cpu": torch.zeros(5, dtype=torch.uint8)}, {"cpu": torch.get_rng_state().float()},
     {"cpu": torch.get_rng_state(), "npu": torch.zeros(2)}, {"cpu": torch.get_rng_state(), "npu": 5}],
)  # fmt: skip
def test_random_states_that_are_none_are_refused_and_change_nothing(state):
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=r"^a: the random states in it are not valid$"):
        checked_rng_state("a", [state])
    assert torch.equal(torch.get_rng_state(), before)


def test_random_states_that_are_valid_are_given_and_only_tried(monkeypatch):
    state = {"cpu": torch.Generator().manual_seed(3).get_state(), "npu": torch.zeros(9, dtype=torch.uint8)}
    before = torch.get_rng_state()
    assert checked_rng_state("a", [state]) is state
    assert torch.equal(torch.get_rng_state(), before)


def test_an_optimizer_that_is_loaded_counts_on(tmp_path, monkeypatch):
    """Also where it comes from the checkpoint that is finetuned."""
    counted = []
    monkeypatch.setattr(runs_module, "count_steps", counted.append)
    saved(tmp_path / "a", 3)
    run = begun(tmp_path / "a")
    assert counted == [run.optimizer]
    begun(tmp_path / "b", checkpoint_path=str(tmp_path / "a/waveglow_3"))
    assert len(counted) == 1


# ---- what may change ----


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [("train_config", "sigma", 0.5), ("train_config", "seed", 7), ("data_config", "segment_length", 512)],
)
def test_a_field_that_must_not_change_is_named(section, field, value):
    ours = Config()
    theirs = asdict(ours)
    check_same_training("a", theirs, ours)
    theirs[section][field] = value
    now = getattr(getattr(ours, section), field)
    with pytest.raises(UserError) as error:
        check_same_training("a", theirs, ours)
    assert str(error.value) == (
        f"a was trained with {section}.{field} = {value}, the config says {now}: --resume=no begins anew,"
        " --checkpoint_path=a trains on from its weights"
    )
    del theirs[section][field]  # of a version that did not have it
    check_same_training("a", theirs, ours)


def test_what_may_change_is_logged_with_both_values(caplog):
    caplog.set_level(logging.INFO)
    ours = Config()
    theirs = asdict(ours)
    theirs["train_config"]["epochs"] += 1
    theirs["data_config"]["training_files"] = "old.txt"
    check_same_training("a", theirs, ours)
    assert caplog.messages == [
        f"changed since the checkpoint: epochs {ours.train_config.epochs}, was {ours.train_config.epochs + 1}",
        "changed since the checkpoint: training_files , was old.txt",
    ]
