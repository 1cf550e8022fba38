"""Work that is shared out among processes: its order, its ends, and what the processes inherit."""

import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import shared_work
from running_programs import wait_for

from common import processes
from common.processes import AHEAD, in_processes
from common.program import UserError
from conftest import ROOT


@pytest.fixture
def stop():
    """Stands in for a StopSignal."""
    return SimpleNamespace(requested=0)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "7")


@pytest.mark.usefixtures("no_process_left")
def test_results_come_in_the_order_of_the_items(stop, tmp_path):
    """From as many processes as were asked for, each of which begins once, and a few items ahead of what is taken."""
    taken = []
    items = (taken.append(i) or i for i in range(30))
    results = in_processes(partial(shared_work.begin, tmp_path), items, 2, stop)
    assert taken == []
    found = []
    for number, result in enumerate(results):
        assert len(taken) == min(30, 2 * AHEAD + number)
        found.append(result)
    assert [value for value, _ in found] == list(range(0, 300, 10))
    began = {path.name for path in tmp_path.glob("began *")}
    assert began >= {f"began {process}" for _, process in found} and len(began) == 2
    assert f"began {os.getpid()}" not in began


def test_without_items_there_is_nothing(stop, tmp_path):
    assert list(in_processes(partial(shared_work.begin, tmp_path), [], 2, stop)) == []


def test_each_process_has_one_thread(stop):
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert list(in_processes(shared_work.begin_looking, names, 1, stop)) == ["1", "1", "1"]


@pytest.mark.parametrize("before", [set(), {signal.SIGINT}])
def test_a_process_leaves_ctrl_c_to_the_program_whose_signals_are_as_they_were(stop, before):
    earlier = signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        assert list(in_processes(shared_work.begin_looking, ["blocked"], 1, stop)) == [True]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def test_nothing_of_the_program_s_memory_is_inherited(stop, monkeypatch):
    """A fork would take locks along that a thread holds, which is not there to let them go."""
    monkeypatch.setattr(shared_work, "of_the_program", "changed")
    assert list(in_processes(shared_work.begin_looking, ["memory"], 1, stop)) == [None]


def test_a_process_that_is_killed_is_said_with_what_to_do(stop):
    results = in_processes(shared_work.begin_dying, range(9), 1, stop)
    with pytest.raises(UserError, match=r"^a process was killed, perhaps for lack of memory: fewer --jobs need less; "):
        list(results)
    wait_for(lambda: not multiprocessing.active_children())


def test_a_signal_to_all_of_them_is_no_lack_of_memory(stop, monkeypatch):
    """It comes just when the first result does."""
    monkeypatch.setattr(processes, "_is_done", lambda result, stop: True)
    results = in_processes(shared_work.begin_dying, [0, 1, 2], 1, stop)
    assert next(results) == 0
    stop.requested = signal.SIGTERM
    assert list(results) == []


def test_an_error_of_the_work_is_raised_here(stop):
    with pytest.raises(ZeroDivisionError, match="item 0"):
        list(in_processes(shared_work.begin_failing, range(3), 1, stop))
    assert stop.requested == 0


def test_a_stop_waits_for_no_work_and_begins_none(stop, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "AHEAD", 20)
    results = in_processes(partial(shared_work.begin_waiting, tmp_path), range(20), 1, stop)
    assert next(results) == 0
    wait_for((tmp_path / "began 1").exists)
    stop.requested = signal.SIGTERM
    assert list(results) == []
    assert not (tmp_path / "ended 1").exists()
    (tmp_path / "go").touch()
    wait_for(lambda: not multiprocessing.active_children())
    assert (tmp_path / "ended 1").exists() and not (tmp_path / "began 19").exists()


def test_a_stop_is_noticed_during_long_work(stop, tmp_path):
    """The stop comes while the result is waited for."""
    began = tmp_path / "began 1"
    asking = property(lambda self: signal.SIGTERM if began.exists() else 0)
    late = type("Late", (), {"requested": asking})()
    assert list(in_processes(partial(shared_work.begin_waiting, tmp_path), [1], 1, late)) == []
    assert not (tmp_path / "ended 1").exists()
    (tmp_path / "go").touch()
    wait_for(lambda: not multiprocessing.active_children())


def test_who_takes_no_more_waits_for_no_work(stop, tmp_path):
    results = in_processes(partial(shared_work.begin_waiting, tmp_path), range(3), 1, stop)
    assert next(results) == 0
    wait_for((tmp_path / "began 1").exists)
    results.close()
    assert not (tmp_path / "ended 1").exists()
    (tmp_path / "go").touch()
    wait_for(lambda: not multiprocessing.active_children())


PROGRAM = """
import sys
from functools import partial
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import shared_work
from common.processes import in_processes
if __name__ == "__main__":
    list(in_processes(partial(shared_work.begin_waiting, sys.argv[2]), range(2), 1, SimpleNamespace(requested=0)))
"""


def test_a_process_ends_with_a_program_that_is_killed(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "program.py", Path(__file__).parent, tmp_path]
    program = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    began = tmp_path / "began 1"
    wait_for(lambda: began.exists() and began.read_text())
    program.kill()
    program.wait(60)
    wait_for(lambda: not is_running(int(began.read_text())))
    assert not (tmp_path / "ended 1").exists()


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
