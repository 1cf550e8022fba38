"""A log where something is amiss: no reader, no disk, a file that is there, long work without a line."""

import os
import subprocess
import sys
import threading

import pytest
from running_programs import wait_for

from common import log
from conftest import ROOT

PROGRAM = """
import logging, os, sys
from pathlib import Path
from common.log import console, open_log
path, how = sys.argv[1:]
open_log(Path(path) if path else None, quiet=how == "quiet")
log = logging.getLogger("common.test")
if how == "speaks first":
    console.say("a result")
log.debug("a step")
log.info("a validation")
log.warning("a warning")
os.system("echo from below Python")
console.say("a result")
log.info("the end")
"""
DISK_FULL = "warning: the log /dev/full is not complete: [Errno 28] No space left on device"
IN_THE_FILE = "a step\na validation\na warning\nfrom below Python\nthe end\n"


def run(path, how, **options):
    command = [sys.executable, "-c", PROGRAM, str(path), how]
    return subprocess.run(command, cwd=ROOT, text=True, timeout=240, check=True, **options)


@pytest.mark.parametrize("how", ["loud", "speaks first"])
def test_a_reader_that_went_away_ends_nothing(tmp_path, how):
    """As `| head` does."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        run(tmp_path / "train.log", how, stdout=gone, stderr=gone)
    assert (tmp_path / "train.log").read_text() == IN_THE_FILE


def test_a_log_goes_on_in_its_file(tmp_path):
    for _ in range(2):
        run(tmp_path / "train.log", "quiet")
    assert (tmp_path / "train.log").read_text() == 2 * IN_THE_FILE


def test_long_work_is_not_silent_and_short_work_is(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(log, "TELL_EVERY", 6000.0)  # of which a tenth is short, on a busy machine too
    monkeypatch.setattr(log.console, "last_line", -1e6)  # long ago
    with log.still("thinking"):
        pass
    assert caplog.messages == []
    monkeypatch.setattr(log, "TELL_EVERY", 0.01)
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), log.still("thinking"):
        wait_for(lambda: caplog.messages)
        raise ZeroDivisionError
    assert caplog.messages[0].startswith("thinking: ")
    assert set(threading.enumerate()) <= before  # nobody is left who could say more


def test_a_log_that_the_disk_does_not_take_is_said_once_and_the_program_goes_on():
    done = run("/dev/full", "loud", capture_output=True)
    assert done.stdout.splitlines() == [DISK_FULL, "a validation", "a result", "the end"]
    assert done.stderr == "a warning\n"
