"""How a program ends."""

import os
import runpy
import subprocess
import sys

import pytest

from common import program
from conftest import ROOT
from runs import torch_version

ENDING = """
import atexit, os
from common import program
atexit.register(os._exit, 3)  # once in many runs a thread of the process group aborted there
program.run(lambda: print("done"), may_be_rank=True)
"""


@pytest.mark.parametrize("is_rank", [True, False])
def test_only_a_rank_leaves_out_interpreter_shutdown(is_rank):
    """Whoever started it."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    for name in ("WORLD_SIZE", "PYTHONUNBUFFERED"):  # what is still in the buffer counts
        environment.pop(name, None)
    if is_rank:
        environment["WORLD_SIZE"] = "2"
    ended = subprocess.run([sys.executable, "-c", ENDING], env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == (0 if is_rank else 3), ended.stderr
    if is_rank:
        assert ended.stdout == "done\n"


SLOW_TO_END = """
import atexit, os, sys, time
from pathlib import Path
from common.program import Parser
if os.environ["RANK"] == "1":
    atexit.register(time.sleep, 3600)
else:
    report = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[1] / "1/error.json"
    while not report.exists():
        time.sleep(0.05)
sys.argv = ["program", "--unknown"]
Parser("", "").parse_args()
"""


def test_a_rank_that_torchrun_ends_after_its_report_keeps_its_exit_code(tmp_path):
    """Rank 1 reports first, rank 0 ends first, for which torchrun kills rank 1."""
    program = tmp_path / "program.py"
    program.write_text(SLOW_TO_END)
    command = [sys.executable, "-m", "common.launch", "--nproc_per_node=2", str(program)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 2, ended.stderr
    # The torchrun of older PyTorch, such as 2.8's, says nothing of the one that it ended.
    rank = 1 if torch_version() >= (2, 13) else 0
    assert ended.stderr == f"error: rank {rank} failed: unrecognized arguments: --unknown (--help lists the options)\n"


@pytest.mark.parametrize("module", ["waveglow.train", "waveglow.infer", "tacotron2.train", "tacotron2.infer"])
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # it has been imported, and runs once more
def test_what_the_launcher_starts_may_be_a_rank(monkeypatch, module):
    asked = []
    monkeypatch.setattr(program, "run", lambda main, may_be_rank=False: asked.append((main.__name__, may_be_rank)))
    runpy.run_module(module, run_name="__main__")
    assert asked == [("main", True)]
