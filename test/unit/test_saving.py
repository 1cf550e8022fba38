"""Checkpoints beside the training: which stay, what waits, what a failure does."""

import math
import subprocess
import sys
import threading

import pytest
import torch
from small_checkpoints import failing, names, state

from common.checkpoints import native
from common.checkpoints.saving import Saved, Saver, copied_to_host
from common.files import remove_leftovers, written_whole
from common.program import UserError
from common.training import loop
from common.training.run import Run
from conftest import ROOT
from runs import make_run, start


def save_all(folder, losses, keep, saved=()):
    """Write a checkpoint for each validation loss; the iterations that stay."""
    with Saver(keep, "stop", list(saved)) as saver:
        for i, loss in enumerate(losses, start=1):
            saver.save(folder / f"waveglow_{i}", state(i), loss)
            saver._last.result()
    return [int(name.split("_")[1]) for name in names(folder)]


def test_the_last_ones_and_the_best_stay(tmp_path):
    assert save_all(tmp_path / "a", [5, 1, 4, 3, 2, 6], keep=2) == [2, 5, 6]
    assert save_all(tmp_path / "b", [5, 4, 3, 2, 1], keep=2) == [4, 5]
    assert save_all(tmp_path / "c", [5, 4, 3, 2, 1], keep=0) == [1, 2, 3, 4, 5]
    assert save_all(tmp_path / "d", [math.nan, 5, math.nan, math.nan], keep=1) == [2, 4]


def test_a_checkpoint_that_somebody_has_removed_is_no_error(tmp_path):
    with Saver(1, "stop", [Saved(tmp_path / "waveglow_0", 9.0)]) as saver:
        saver.save(tmp_path / "waveglow_1", state(1), 1.0)
        saver._last.result()
        assert [saved.path.name for saved in saver.saved] == ["waveglow_1"]
    assert names(tmp_path) == ["waveglow_1"]


def test_the_best_so_far_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    save_all(tmp_path, [5, 6, 4, math.nan, 4, 3], keep=2)
    said = [line.rpartition("waveglow_")[2] for line in caplog.text.splitlines() if "saved " in line]
    best = ", the best so far"
    assert said == [f"1{best}", "2", f"3{best}", "4", "5", f"6{best}"]


def test_a_copy_is_of_the_same_kinds_and_of_its_own():
    tensor = torch.ones(2, requires_grad=True)
    value = {"a": [tensor, (1, tensor)], 2: ("text", None), "empty": []}
    copy = copied_to_host(value)
    assert [type(each) for each in (copy, copy["a"], copy["a"][1], copy[2])] == [dict, list, tuple, tuple]
    assert (copy["a"][1][0], copy[2], copy["empty"]) == (1, ("text", None), [])
    for each in (copy["a"][0], copy["a"][1][1]):
        assert torch.equal(each, tensor) and each.data_ptr() != tensor.data_ptr() and not each.requires_grad


@pytest.mark.usefixtures("disk_that_keeps_up")
def test_a_run_that_goes_on_counts_what_it_wrote_before(config, corpus, tmp_path):
    out = tmp_path / "out"
    often = {"iters_per_checkpoint": 1, "iters_per_validation": 1, "keep_checkpoints": 2, "learning_rate": 1e-3}
    start(config[1], corpus, tmp_path / "origin", max_steps=1)
    tuning = {"checkpoint_path": str(tmp_path / "origin/waveglow_1")}
    start(config[1], corpus, out, max_steps=1)
    start(config[1], corpus, out, max_steps=4, **often, **tuning)
    run, _ = start(config[1], corpus, out, max_steps=6, **often, **tuning)
    own = dict(run.progress.validation_losses)
    best = min(range(2, 8), key=lambda iteration: own[iteration])
    # waveglow_1 is of another run and not for this one to remove
    assert {path.name for path in out.glob("waveglow_*")} == {
        "waveglow_1",
        f"waveglow_{best}",
        "waveglow_6",
        "waveglow_7",
    }


def test_a_run_knows_what_it_has_saved_and_how_good_that_was(config, tmp_path):
    """The oldest first, by number; each with the last validation loss before it; not those of other runs."""
    run = make_run(config[1], tmp_path)
    saved = {10: [(0, 9.0), (5, 4.0), (10, 7.0)], 2: [], 9: [(0, 9.0), (5, 4.0)], 8: [(0, 9.0)]}
    for iteration, losses in saved.items():
        run.progress.iteration, run.progress.validation_losses = iteration, losses
        run.progress.run = 7 if iteration == 8 else 3
        native.save(run.path(), run.state([]))
    run.progress.run = 3
    found = [(saved.path.name, saved.validation_loss) for saved in run.saved()]
    assert [name for name, _ in found] == ["waveglow_2", "waveglow_9", "waveglow_10"]
    assert math.isnan(found[0][1]) and [loss for _, loss in found[1:]] == [4.0, 7.0]


def test_the_new_one_is_whole_before_an_old_one_goes(tmp_path, monkeypatch):
    native.save(tmp_path / "waveglow_1", state())

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"cannot save .*waveglow_2: No space left on device"):
        save_all(tmp_path, [1, 2], keep=1, saved=[Saved(tmp_path / "waveglow_1", 3.0)])
    assert names(tmp_path) == ["waveglow_1"]


def test_training_does_not_wait_for_the_disk(config, corpus, tmp_path, monkeypatch, caplog):
    """While the first checkpoint is stuck all steps are made; of those that wait the last is written."""
    stuck, original = threading.Event(), native.save

    def slow(path, state):
        if path.name == "waveglow_1":
            assert stuck.wait(300)
        original(path, state)

    def let_go_in_the_end(task, run):
        loss = task.loss

        def counted(model, batch):
            if run.progress.iteration == 5:
                stuck.set()
            return loss(model, batch)

        task.loss = counted

    monkeypatch.setattr(native, "save", slow)
    start(config[1], corpus, tmp_path, spoil=let_go_in_the_end, max_steps=6, iters_per_checkpoint=1)
    assert "the disk does not keep up" in caplog.text
    assert {"waveglow_1", "waveglow_6"} <= set(names(tmp_path))
    assert native.load(tmp_path / "waveglow_1")["iteration"] == 1
    assert len(native.load(tmp_path / "waveglow_1")["progress"]["losses"]) == 1


def test_a_checkpoint_holds_what_was_when_it_was_taken(tmp_path):
    weights, losses = torch.zeros(1000), [1.0]
    held = threading.Event()
    with Saver(5, "stop", []) as saver:
        saver._thread.submit(held.wait)
        saver.save(tmp_path / "waveglow_1", state() | {"model": {"a": weights}, "progress": {"losses": losses}}, 0.0)
        weights += 1
        losses.append(2.0)
        held.set()
    saved = native.load(tmp_path / "waveglow_1")
    assert saved["model"]["a"].abs().max() == 0
    assert saved["progress"]["losses"] == [1.0]


def test_a_failure_stops_the_run_at_the_next_step(config, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "save", failing({2}))
    with pytest.raises(UserError, match="waveglow_2: disk full"):
        start(config[1], corpus, tmp_path, max_steps=50, iters_per_checkpoint=1)
    assert max(int(name.split("_")[1]) for name in names(tmp_path)) < 50


@pytest.mark.usefixtures("disk_that_keeps_up")
def test_training_goes_on_after_a_failure_where_that_is_configured(config, corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(native, "save", failing({2}))
    often = {"max_steps": 4, "iters_per_checkpoint": 2, "on_save_error": "continue"}
    _, summary = start(config[1], corpus, tmp_path, **often)
    assert summary.iteration == 4
    assert "waveglow_2: disk full; training goes on" in caplog.text
    assert names(tmp_path) == ["waveglow_4"]


def test_an_error_of_the_training_is_not_hidden_by_one_of_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "save", failing({1}))
    with pytest.raises(ZeroDivisionError), Saver(1, "stop", []) as saver:
        saver.save(tmp_path / "waveglow_1", state(1), 0.0)
        saver._last.result()
        raise ZeroDivisionError


@pytest.mark.usefixtures("disk_that_keeps_up")
def test_the_last_checkpoint_must_be_written_whatever_is_configured(config, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "save", failing({4}))
    often = {"max_steps": 4, "iters_per_checkpoint": 2, "on_save_error": "continue"}
    with pytest.raises(UserError, match="waveglow_4: disk full"):
        start(config[1], corpus, tmp_path, **often)
    assert names(tmp_path) == ["waveglow_2"]


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_full_disk(config, corpus, small_disk, caplog, on_error):
    often = {"iters_per_checkpoint": 1, "keep_checkpoints": 0, "max_steps": 100, "on_save_error": on_error}
    with pytest.raises(
        UserError, match=r"cannot save .*No space left on device .*free there.; the earlier checkpoints are untouched"
    ):
        start(config[1], corpus, small_disk, **often)
    whole = names(small_disk)
    assert 1 < len(whole) < 100
    for name in whole:
        assert native.load(small_disk / name)["iteration"] == int(name.removeprefix("waveglow_"))
    failed, left_out = (caplog.text.count(said) for said in ("training goes on", "is left out"))
    if on_error == "stop":
        assert failed == 0
    else:  # each of the hundred was written, failed or gave way to the next one
        assert len(whole) + failed + left_out == 100 and failed > 0


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); from common.files import written_whole\n"
        "with written_whole(sys.argv[2]) as file: file.write(b'half'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, ROOT, tmp_path / "killed"], timeout=240)
    assert len(names(tmp_path)) == 1
    with written_whole(tmp_path / "alive") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path)
    assert names(tmp_path) == ["alive"]


@pytest.mark.parametrize(("rank", "is_removed"), [(0, True), (1, False)])
def test_a_training_begins_without_them(config, tmp_path, monkeypatch, rank, is_removed):
    """The first rank alone, which writes the checkpoints, removes them and knows which there are."""
    run = make_run(config[1], tmp_path / "out")
    left = tmp_path / "out/.waveglow_3.123.part"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(Run, "saved", lambda self: ["what is there"])
    saver = loop.make_saver(run)
    assert left.exists() != is_removed
    assert saver.saved == (["what is there"] if rank == 0 else [])


def test_a_checkpoint_of_another_run_keeps_its_content_under_a_dated_name(config, corpus, tmp_path):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=2)
    earlier = (out / "waveglow_2").read_bytes()
    start(config[1], corpus, out, resume="no", max_steps=2, learning_rate=1e-5)
    (dated,) = out.glob("waveglow_2.*")
    assert dated.read_bytes() == earlier
    assert (out / "waveglow_2").read_bytes() != earlier


def test_a_save_that_fails_leaves_the_name_to_the_earlier_checkpoint(config, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=2)
    earlier = (out / "waveglow_2").read_bytes()

    def fail(*args):
        raise UserError("disk full")

    monkeypatch.setattr(native, "save", fail)
    with pytest.raises(UserError, match="disk full"):
        start(config[1], corpus, out, resume="no", max_steps=2)
    assert (out / "waveglow_2").read_bytes() == earlier
    assert [p.name for p in out.iterdir()] == ["waveglow_2"]
