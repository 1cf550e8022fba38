"""The file of a folder's lock: whom it names, what becomes of it, and the lock for scripts."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from common import folder_lock, program
from common.folder_lock import LOCK, BusyError, hold_folder, sole_writer
from common.program import WriteError
from conftest import ROOT

OURS = rf"process {os.getpid()} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
HERE = f"process 7 on {socket.gethostname()} since 2026-01-02 03:04:05"


@pytest.fixture
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


@pytest.mark.parametrize("left", [None, "", HERE, f"{HERE} {'x' * 600}"])
def test_it_names_this_process_alone_whatever_was_left(tmp_path, caplog, left):
    """A run that was killed here needs no word."""
    if left is not None:
        (tmp_path / LOCK).write_text(left)
    with sole_writer(tmp_path):
        assert re.fullmatch(OURS, (tmp_path / LOCK).read_text())
    assert not caplog.messages and list(tmp_path.iterdir()) == []


def test_any_user_s_run_may_lock_the_folder(tmp_path):
    """As far as the user's umask lets it."""
    before = os.umask(0o002)
    try:
        with sole_writer(tmp_path):
            assert (tmp_path / LOCK).stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_on_a_full_disk_it_names_nobody(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    with sole_writer(tmp_path):
        assert (tmp_path / LOCK).read_text() == ""


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """A folder that another process holds, and a clock whose every look is noted; a function that tries to lock it."""

    def refuse(file, operation):
        assert operation == fcntl.LOCK_EX | fcntl.LOCK_NB
        raise OSError(taken.errno, os.strerror(taken.errno))

    def sleep(seconds):
        taken.slept += 1
        if taken.slept == taken.named_after:
            (tmp_path / LOCK).write_text("process 5 on\n here")

    def said(**options):
        with pytest.raises(BusyError) as caught, sole_writer(tmp_path, **options):
            pass
        return str(caught.value)

    taken = SimpleNamespace(errno=errno.EAGAIN, slept=0, named_after=None, said=said)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(folder_lock, "time", SimpleNamespace(sleep=sleep, strftime=time.strftime))
    return taken


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_one_that_has_just_taken_it_is_given_time_to_say_its_name(taken, tmp_path, number):
    taken.errno, taken.named_after = number, 9
    said = taken.said(option="--output_directory")
    other = "wait, or choose another folder with --output_directory"
    assert said == f"another run is writing to {tmp_path}: process 5 on here; {other}"
    assert taken.slept == 9


def test_one_that_has_no_name_is_told_nevertheless(taken, tmp_path):
    expected = f"another run is writing to {tmp_path}: it has left no name; wait, or choose another folder"
    assert taken.said() == expected and taken.slept == 10
    assert BusyError.code == 75  # the same command may work later
    assert (tmp_path / LOCK).exists() and not folder_lock._held


def test_a_name_that_is_no_text_is_told_as_far_as_it_can_be(taken, tmp_path):
    (tmp_path / LOCK).write_bytes(b"process\xff 5")
    assert ": process\N{REPLACEMENT CHARACTER} 5; wait" in taken.said() and taken.slept == 0


def test_folders_are_taken_in_one_order_whoever_names_them(tmp_path, monkeypatch):
    """So two runs that need the same two folders do not each wait for the other."""
    real, order = folder_lock._lock, []
    monkeypatch.setattr(
        folder_lock, "_lock", lambda folder, option: (order.append(folder.name), real(folder, option))[1]
    )
    for name in "abcde":
        (tmp_path / name).mkdir()
    with sole_writer(*(tmp_path / name for name in "dbeca"), tmp_path / "a"):
        assert order == list("abcde")
        with sole_writer(tmp_path / "c", tmp_path / "b/../c"):
            pass
        assert all((tmp_path / name / LOCK).exists() for name in "abcde") and order == list("abcde")
    assert not folder_lock._held


def test_if_one_of_them_is_taken_none_is_held(tmp_path, monkeypatch):
    real = fcntl.lockf
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "b" / LOCK).write_text("process 5")

    def refuse(file, operation):
        if os.readlink(f"/proc/self/fd/{file}").endswith("b/.lock"):
            raise OSError(errno.EAGAIN, "")
        return real(file, operation)

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(BusyError, match="process 5"), sole_writer(tmp_path / "a", tmp_path / "b"):
        pass
    assert not folder_lock._held and list((tmp_path / "a").iterdir()) == []


def test_a_file_that_its_last_holder_removed_just_now_is_made_anew(tmp_path, monkeypatch):
    real, removed = fcntl.lockf, []

    def remove_first(file, operation):
        real(file, operation)
        if not removed:
            (tmp_path / LOCK).unlink()
            removed.append(file)

    monkeypatch.setattr(fcntl, "lockf", remove_first)
    with sole_writer(tmp_path):
        assert removed and re.fullmatch(OURS, (tmp_path / LOCK).read_text())


def test_a_lock_is_let_go_though_its_file_cannot_be_removed(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch, sole_writer(tmp_path):
        patch.setattr(os, "unlink", refuse)
    assert not folder_lock._held and (tmp_path / LOCK).exists()


def test_a_folder_is_held_until_the_program_ends(tmp_path, taken, monkeypatch):
    with pytest.raises(BusyError, match=r"another folder with --here$"):
        hold_folder(tmp_path, "--here")
    monkeypatch.undo()
    hold_folder(str(tmp_path), "--here")
    assert (tmp_path / LOCK).exists()
    program.at_end.close()
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path):
    with (
        pytest.raises(WriteError, match=r"nowhere/\.lock: No such file or directory$"),
        sole_writer(tmp_path / "nowhere"),
    ):
        pass


def locked(*command):
    command = [sys.executable, "-m", "common.folder_lock", *map(str, command)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_script_s_command_runs_with_the_lock(tmp_path):
    """In the place of the program, with its end; another one in it ends with 75."""
    inner = [sys.executable, "-m", "common.folder_lock", tmp_path, "echo", "never"]
    done = locked(tmp_path, "bash", "-c", '"$@"; echo "inner ended with $?"; exit 7', "-", *inner)
    assert (done.returncode, done.stdout) == (7, "inner ended with 75\n")
    assert done.stderr.startswith(f"error: another run is writing to {tmp_path}: process ")
    done = locked(tmp_path, "echo", "a  b")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a  b\n", "")
