"""How a program ends."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT

ENDING = """
import atexit, os
from common import program
atexit.register(os._exit, 3)  # once in many runs a thread of the process group aborted there
program.run(lambda: print("done"))
"""


@pytest.mark.parametrize("by_launcher", [True, False])
def test_only_a_rank_leaves_out_interpreter_shutdown(tmp_path, by_launcher):
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    environment.pop("TORCHELASTIC_ERROR_FILE", None)
    if by_launcher:
        environment["TORCHELASTIC_ERROR_FILE"] = str(tmp_path / "error.json")
    ended = subprocess.run([sys.executable, "-c", ENDING], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == (0 if by_launcher else 3), ended.stderr
    if by_launcher:
        assert ended.stdout == "done\n"
