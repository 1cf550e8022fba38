"""One run at a time writes to a folder: whoever holds it is named, and a lock ends with its process."""

import fcntl
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
from folder_holders import end_holder, start_holder
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from common import folder_lock
from common.files import make_output_folder
from common.folder_lock import LOCK, BusyError, sole_writer
from common.program import UserError
from conftest import ROOT, run_script, write_config


@pytest.fixture
def orphans():
    """Ends what the holders have forked."""
    with ExitStack() as stack:
        yield lambda process: stack.callback(os.killpg, process.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", [0, signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_the_process_though_its_children_go_on(tmp_path, orphans, how):
    process, said = start_holder(tmp_path)
    orphans(process)
    assert said == "held"
    with pytest.raises(BusyError) as caught, sole_writer(tmp_path, option="--output_directory"):
        pass
    expected = (
        rf"another run is writing to {re.escape(str(tmp_path))}: process {process.pid} on \S+ since"
        r" 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d; wait, or choose another folder with --output_directory"
    )
    assert re.fullmatch(expected, str(caught.value))
    end_holder(process, how)
    assert (tmp_path / LOCK).exists() == bool(how)
    with sole_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


class Locks(RuleBasedStateMachine):
    """Against a model: a folder has one holder, by whatever path it is called, until that ends in whatever way."""

    @initialize()
    def begin(self):
        self.root = make_output_folder(self.place / str(os.urandom(4).hex()))
        self.folders = [make_output_folder(self.root / name) for name in "ab"]
        (self.root / "link").symlink_to(self.folders[0])
        self.names = [*self.folders, self.root / "link", self.root / "b/../a"]
        self.holders = {}

    def free(self, names):
        return not {name.resolve() for name in names} & {f for held in self.holders.values() for f in held}

    @precondition(lambda self: len(self.holders) < 2)
    @rule(numbers=st.lists(st.integers(0, 3), min_size=1, max_size=3))
    def take(self, numbers):
        names = [self.names[number] for number in numbers]
        free = self.free(names)
        process, said = start_holder(*names)
        assert (said == "held") == free, said
        if free:
            self.holders[process] = {name.resolve() for name in names}
        else:
            assert any(f"process {other.pid} on " in said for other in self.holders)
            end_holder(process, 0)

    @precondition(lambda self: self.holders)
    @rule(how=st.sampled_from([0, signal.SIGKILL, signal.SIGTERM]))
    def end(self, how):
        process = next(iter(self.holders))
        end_holder(process, how)
        os.killpg(process.pid, signal.SIGKILL)
        del self.holders[process]

    @rule(number=st.integers(0, 3))
    def try_here(self, number):
        free = self.free([self.names[number]])
        try:
            with sole_writer(self.names[number]):
                assert free
        except BusyError:
            assert not free

    def teardown(self):
        for process in getattr(self, "holders", {}):
            end_holder(process, signal.SIGKILL)
            os.killpg(process.pid, signal.SIGKILL)


def test_any_order_of_runs_that_begin_and_end(tmp_path):
    from hypothesis.stateful import run_state_machine_as_test

    Locks.place = tmp_path
    few = settings(max_examples=6, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Locks, settings=few)


def test_a_process_may_hold_a_folder_twice(tmp_path):
    with sole_writer(tmp_path):
        with sole_writer(tmp_path, tmp_path / "..", tmp_path):
            pass
        process, said = start_holder(tmp_path)
        assert said.startswith("another run is writing to")
        end_holder(process, 0)
    process, said = start_holder(tmp_path)
    assert said == "held"
    end_holder(process, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_that_was_moved_takes_its_lock_along(tmp_path):
    make_output_folder(tmp_path / "a")
    with sole_writer(tmp_path / "a"):
        (tmp_path / "a").rename(tmp_path / "b")
        process, said = start_holder(make_output_folder(tmp_path / "a"))
        assert said == "held"
    # The one who holds the new folder of that name keeps it.
    with pytest.raises(BusyError, match=f"process {process.pid} "), sole_writer(tmp_path / "a"):
        pass
    end_holder(process, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)


def test_a_name_left_by_another_machine_is_said(tmp_path, caplog):
    """The run was killed there; or it runs, and this file system's locks are of one machine."""
    (tmp_path / LOCK).write_text("process 7 on elsewhere since 2026-01-02 03:04:05")
    with sole_writer(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
    assert "names process 7 on elsewhere since 2026-01-02 03:04:05, which has not ended properly" in caplog.text


def test_a_file_system_without_locks_is_said(tmp_path, caplog, monkeypatch):
    def refuse(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with sole_writer(tmp_path):
        assert f"{tmp_path} cannot be locked (Function not implemented): let no other run write to it" in caplog.text
    assert not folder_lock._held


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("elsewhere")])
def test_a_lock_that_cannot_be_written(tmp_path, make):
    make(tmp_path / LOCK)
    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/\.lock: "), sole_writer(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def place(checkout, corpus, config):
    """(checkout, what every script needs)."""
    path = write_config(checkout / "config.json", config[1])
    return checkout, [f"--data_path={corpus}", f"--config={path}", "--device=cpu", "--max_steps=1"]


@pytest.mark.slow
def test_two_scripts_at_once(place, tmp_path):
    """The second one ends before anything of the first is moved or written."""
    checkout, options = place
    logs = make_output_folder(checkout / "test/output/0")
    (logs / "train_0.log").write_text("of the run that goes on")
    process, _ = start_holder(logs)
    done = run_script(checkout, "train_full_8p.sh", *options, "--nproc=1", f"--output_directory={tmp_path}/out")
    assert done.returncode == 75, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: another run is writing to {logs}: process {process.pid} on ")
    assert line.endswith("choose another folder with --log_directory")
    assert (logs / "train_0.log").read_text() == "of the run that goes on"
    assert sorted(path.name for path in logs.parent.iterdir()) == ["0"]
    assert not list((tmp_path / "out").glob("*"))
    end_holder(process, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_two_runs_in_one_output_directory(place, tmp_path):
    """Trainings of one and of two processes, and an evaluation."""
    checkout, options = place
    out = make_output_folder(tmp_path / "out")
    first = run_script(checkout, "train_full_8p.sh", *options, "--nproc=1", f"--output_directory={out}")
    assert first.returncode == 0, first.stderr
    there = sorted(out.iterdir())
    process, _ = start_holder(out, make_output_folder(out / "eval_waveglow_1"))
    evaluation = [options[0], options[2], f"--pth_path={out}/waveglow_1"]
    for script, given in (("train_full_8p.sh", options), ("train_eval_8p.sh", evaluation)):
        for processes in (1, 2):
            done = run_script(checkout, script, *given, f"--nproc={processes}", f"--output_directory={out}")
            assert done.returncode == 75, done.stderr
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
            assert f"another run is writing to {out}" in line and f"process {process.pid} on " in line
    end_holder(process, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    (out / LOCK).unlink()
    assert sorted(path for path in out.iterdir() if path.name != "eval_waveglow_1") == there
    # Reading is not writing.
    process, _ = start_holder(out)
    tuning = [*options, f"--checkpoint_path={out}/waveglow_1", f"--output_directory={tmp_path}/tuned"]
    done = run_script(checkout, "train_finetune_1p.sh", *tuning)
    assert done.returncode == 0, done.stderr
    end_holder(process, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)


CONTENDER = """
import os, sys
from common.folder_lock import BusyError, sole_writer
print("ready", flush=True)
sys.stdin.readline()
held = 0
while held < 30:
    try:
        with sole_writer(sys.argv[1]):
            os.close(os.open(f"{sys.argv[1]}/mark", os.O_CREAT | os.O_EXCL))  # fails if another one is inside
            os.sched_yield()
            os.unlink(f"{sys.argv[1]}/mark")
        held += 1
    except BusyError as error:
        assert "another run is writing" in str(error)
"""


def test_of_many_that_come_and_go_one_is_inside(tmp_path):
    """Though the lock's file is removed each time."""
    command = [sys.executable, "-c", CONTENDER, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    contenders = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in contenders] == ["ready\n"] * 4
    for process in contenders:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in contenders:
        process.communicate(timeout=100)
    assert [process.returncode for process in contenders] == [0] * 4
    assert list(tmp_path.iterdir()) == []
