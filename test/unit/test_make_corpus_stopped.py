"""tools/make_corpus.py as a program that is stopped: nothing of it goes on, and nothing is shown that is no message."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running_programs import wait_for

from conftest import ROOT

PROGRAM = """
import fake_engine
from common import program
from tools import make_corpus
make_corpus.ENGINES["hibari"] = fake_engine.find
program.run(make_corpus.main)
"""


@pytest.mark.parametrize(("number", "whole_group", "code"), [(signal.SIGINT, True, 130), (signal.SIGKILL, False, -9)])
@pytest.mark.slow
def test_who_is_stopped_leaves_no_process_and_no_traceback(tmp_path, number, whole_group, code):
    """Ctrl-C goes to all processes of a terminal; a kill to the first one, whose children have to notice."""
    (tmp_path / "texts.txt").write_text("slow line\n" * 500)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "c"), f"--texts={tmp_path / 'texts.txt'}", "--jobs=2"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'test/unit'}"}
    program = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(list(tmp_path.glob("c/wavs/*.wav"))) > 3, 240)
    processes = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    assert len(processes) >= 2
    assert all(is_deaf_to_interrupts(process) for process in processes)
    (os.killpg if whole_group else os.kill)(program.pid, number)
    _, errors = program.communicate(timeout=240)  # ends when all processes have closed it
    assert program.returncode == code
    assert "Traceback" not in errors
    wait_for(lambda: not group_lives(program.pid), 240)


def is_deaf_to_interrupts(process):
    """SIGINT is blocked or ignored: else Ctrl-C at a bad moment would show a traceback of each process."""
    status = Path(f"/proc/{process}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk:", "SigIgn:"))]
    return any(mask & 1 << signal.SIGINT - 1 for mask in masks)


def group_lives(number):
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True
