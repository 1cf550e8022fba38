"""Runs of two processes with a fault in one of them; each test shows that its fault happened."""

import json
import re
import subprocess
import sys

import pytest
import torch
from faulty_runs import FAULT

from common.checkpoints import native
from conftest import ROOT

pytest_plugins = ["faulty_runs"]


@pytest.mark.slow
def test_kills_at_random_moments():
    script = [sys.executable, ROOT / "test/attack.py", "--kills=5", "--seed=1", "--phases=checkpoint", "--files=no"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("checkpoint: killed") >= 5
    assert "WRONG" not in done.stdout


def result(folder, iteration):
    return native.load(folder / f"waveglow_{iteration}")


def assert_same_weights(a, b):
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert a["progress"]["losses"] == b["progress"]["losses"]


@pytest.mark.slow
def test_a_resumed_run_of_two_equals_an_undisturbed_one(train, tmp_path):
    """A rank is killed in the middle of a step; the run goes on from the last checkpoint, across an epoch's end."""
    often = ["--max_steps=7", "--workers=1", "--keep_checkpoints=0"]
    whole = train("whole", "", *often)
    assert whole.returncode == 0, whole.stderr
    config = json.loads((tmp_path / "config.json").read_text())
    config["train_config"]["iters_per_checkpoint"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    cut = train("parts", "killed:1:4", *often)
    assert FAULT in cut.logs[1] and "5:\t" not in cut.logs[0]
    assert cut.returncode == 128 + 9
    assert re.search(r"^error: rank 1 failed: Signal 9 \(SIGKILL\)", cut.stderr, re.MULTILINE)
    resumed = train("parts", "", *often)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from" in resumed.stdout
    assert_same_weights(result(tmp_path / "parts", 7), result(tmp_path / "whole", 7))


@pytest.mark.slow
def test_one_process_goes_on_where_two_were(train, tmp_path):
    train("out", "", "--max_steps=2")
    done = train("out", "", "--max_steps=4", nproc=1)
    assert done.returncode == 0, done.stderr
    assert (
        "resumed with 1 process(es) instead of 2: a step takes other clips, random states start afresh" in done.stdout
    )
    assert result(tmp_path / "out", 4)["iteration"] == 4


@pytest.mark.parametrize("kind", ["hanging", pytest.param("busy", marks=pytest.mark.slow)])
def test_a_rank_that_hangs_shows_where_and_ends_the_run(train, kind):
    """The clock of its watchdog is put forward once the fault has happened."""
    done = train("out", f"{kind}:1:2", "--hang_limit=100")
    assert FAULT in done.logs[1]
    assert done.returncode == 1
    told = "error: rank 1 failed: no progress while computing the loss, given up after hang_limit = 100 s"
    assert told in done.stderr
    assert re.search(rf"faulty_train\.py\", line \d+ in {kind}", done.logs[1])


@pytest.mark.slow
def test_a_rank_that_is_stopped_ends_the_run_too(train):
    """It cannot say so itself: the rank that waits for it does."""
    done = train("out", "stopped:1:2", "--hang_limit=20")
    assert FAULT in done.logs[1]
    assert done.returncode == 1
    assert "rank 0 failed: no progress while exchanging gradients, given up after hang_limit = 20 s" in done.stderr


@pytest.mark.slow
def test_nan_on_one_rank_makes_all_skip_the_step(train, tmp_path):
    done = train("out", "nan:1:1", "--max_steps=3")
    assert FAULT in done.logs[1]
    assert done.returncode == 0, done.stderr
    for log in done.logs:
        assert "iteration 2: loss nan or its gradients are not finite, step skipped (1 in a row)" in log
    saved = result(tmp_path / "out", 3)
    assert [loss == loss for loss in saved["progress"]["losses"]] == [True, False, True]
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())


@pytest.mark.slow
def test_a_restarted_worker_ends_with_the_weights_of_an_undisturbed_run(train, tmp_path):
    whole = train("whole", "", "--max_steps=5")
    assert whole.returncode == 0, whole.stderr
    done = train("out", "killed:1:3", "--max_steps=5", launcher=["--max_restarts=2"])
    assert FAULT in done.logs[1]
    assert done.returncode == 0, done.stderr
    assert_same_weights(result(tmp_path / "out", 5), result(tmp_path / "whole", 5))


@pytest.mark.slow
def test_clips_that_turn_unreadable_are_named_and_skipped(train):
    done = train("out", "lost:1:1", "--max_steps=12", "--on_bad_clip=skip", "--workers=1")
    assert FAULT in done.logs[1]
    assert done.returncode == 0, done.stderr
    assert re.search(r"skipped: .*clip\d\d\.wav", done.stderr)


@pytest.mark.slow
def test_or_end_the_run_by_name(train):
    done = train("out", "lost:1:1", "--max_steps=12", "--workers=1")
    assert FAULT in done.logs[1]
    assert done.returncode == 1
    assert re.search(r"^error: rank [01] failed: .*clip\d\d\.wav", done.stderr, re.MULTILINE)
