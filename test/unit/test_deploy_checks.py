"""What programs can know from options and files is said before PyTorch is loaded and anything is written."""

import json
import os
import subprocess
import sys

import pytest

from common.program import UserError
from conftest import ROOT, script_environment
from tools.deploy import checks, run
from tools.deploy.gen_model.settings import DEFAULT

PROGRAM = """
import contextlib, importlib, io, json, sys
sys.modules["torch"] = None  # to import it fails
from common.program import UserError

answers = []
for module, *options in json.load(sys.stdin):
    sys.argv, said, code = ["program", *options], io.StringIO(), 1
    with contextlib.redirect_stderr(said):
        try:
            importlib.import_module(f"tools.deploy.{module}").main()
        except UserError as error:
            said.write(str(error))
        except SystemExit as end:
            code = end.code
    answers.append([code, said.getvalue()])
json.dump(answers, sys.stderr)
"""

OPTIONS = [
    (2, "--bs is 0, must be 1 to 1024", "--bs=0"),
    (2, "--bs is 99999999999, must be 1 to 1024", "--bs=1,99999999999"),
    (2, "name each once", "--bs=2,2"),
    (2, "must be numbers, such as 0,1, not '-1'", "--bs", "-1"),
    (2, "must be numbers", "--bs=4.5"),
    (2, "must be numbers", "--bs="),
    (
        1,
        f"--il is 257, and engines are built for 4 to 256: choose another, or give with --json a copy of {DEFAULT} in",
        "--il=257",
    ),
    (
        1,
        "--il is 20, and engines are built for 4 to 9: choose another, or give with --json a copy of short.json in",
        "--json=short.json",
        "--il=20",
    ),
    (1, "device 99 does not exist", "--devices=0,99"),
    (2, "invalid choice: 'int4'", "--quant_mode=int4"),
    (2, "invalid choice: 'tensorrt'", "--engine=tensorrt"),
    (2, "invalid choice: 12", "--opset=12"),
    (2, "--num_iters must be at least 2", "--devices=0,1", "--num_iters=1"),
    (2, "--sigma must be at least 0", "--sigma=nan"),
    (2, "--sigma must be at least 0 and below", "--sigma=inf"),
    (2, "--seed must be at least 0 and below", "--seed=99999999999"),
    (1, "there is no voice 'nobody': choose from", "--voice=nobody"),
    (1, "there is no voice", "--voice=../voices/heart"),
    (1, "cannot read the checkpoint {here}/nowhere: No such file", "--tacotron2=nowhere", "--waveglow=nowhere"),
    (1, "--waveglow: cannot read the checkpoint", "--tacotron2=heart/tacotron2", "--waveglow=folder"),
    (1, "the checkpoint {here}/empty is empty", "--tacotron2=empty", "--waveglow=heart/waveglow"),
    (1, "there is no checkpoint of WaveGlow: name one", "--tacotron2=heart/tacotron2"),
    (1, "cannot read the config nowhere.json", "--json=nowhere.json"),
    (1, "cannot read the config folder: Is a directory", "--json=folder"),
    (1, "empty is not JSON", "--json=empty"),
    (1, "cannot write to empty/onnx: {here}/empty is no folder", "--models_dir=empty"),
    (1, "cannot write to taken/onnxruntime_int8: taken/onnxruntime_int8 is no folder", "--models_dir=taken"),
    (1, "cannot write to empty/out: {here}/empty is no folder", "-o", "empty/out"),
]
STAGES = [
    (2, "invalid choice: 12", "export_model.export", "--opset=12"),
    (2, "--random does not go with a checkpoint", "export_model.export", "--random", "--voice=heart"),
    (1, "cannot read the checkpoint", "export_model.export", "--tacotron2=nowhere", "--waveglow=nowhere"),
    (2, "invalid choice: 'int4'", "gen_model.build", "--quant_mode=int4"),
    (2, "--bs is 0, must be 1 to 1024", "gen_model.build", "--bs=0"),
    (1, "cannot read the config nowhere.json", "gen_model.build", "--json=nowhere.json"),
    (2, "invalid choice: 'int4'", "infer_python.infer", "--quant_mode=int4"),
    (2, "--num_iters must be at least 2", "infer_python.infer", "--devices=0,1", "--num_iters=1"),
    (1, "nothing for torch in models/torch_force_float32", "infer_python.infer", "--engine=torch"),
    (
        1,
        "cannot write to taken/onnxruntime_int8: taken/onnxruntime_int8 is no folder",
        "benchmark.perf",
        "--models_dir=taken",
        "--quant_modes",
        "force_float32",
        "int8",
    ),
    (2, "--max_batch must be 1 to 1024", "triton.__main__", "-o", "repository", "--max_batch=0"),
    (1, "nothing for onnx in models/onnx", "triton.__main__", "-o", "repository"),
]


@pytest.fixture
def here(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "short.json").write_text('{"ranges": {"text": [4, 8, 9]}}')
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/onnxruntime_int8").touch()
    return tmp_path


def refused(here, *cases: list[str]) -> list:
    """[exit code, message] of each case, a module and its options."""
    before = sorted(here.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=here, env=script_environment() | {"PYTHONPATH": str(ROOT)},
        input=json.dumps(cases), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(here.rglob("*")) == before
    return json.loads(done.stderr)


def test_folders_that_may_not_be_written_to(tmp_path, monkeypatch):
    """Of root all may."""
    monkeypatch.setattr(checks.os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}/a/b: {tmp_path} may not be written to"):
        checks.check_folder(tmp_path / "a/b")


def test_a_device_that_was_looked_at_is_given_back(tmp_path, monkeypatch):
    """Or who then builds and speaks would not get it."""
    held, looked_at = set(), []

    class Card:
        device_name = "a card"

        def __init__(self, device, shares, options):
            self.device = device
            held.add(device)
            looked_at.append((device, shares))

        def close(self):
            held.remove(self.device)

    monkeypatch.setattr(checks, "find_engine", lambda name: Card)
    monkeypatch.setattr(sys, "argv", ["run", f"--models_dir={tmp_path}", "-o", str(tmp_path), "--devices=0,2"])
    checks.begin(run.read_arguments(), ["int8"])
    assert (looked_at, held) == ([(0, 2), (2, 2)], set())


def test_what_cannot_be_is_said_at_once_and_nothing_is_written(here):
    both = "--models_dir=models", "-o", "out", "--quant_mode=int8"
    cases = [[module, *both, *options] for module in ("run", "benchmark.perf") for _, _, *options in OPTIONS]
    for (code, says, *options), (answer, said) in zip(OPTIONS * 2, refused(here, *cases), strict=True):
        assert answer == code, (options, said)
        assert says.format(here=here) in said, options


def test_so_it_is_by_the_programs_of_the_stages(here):
    cases = [[module, "--models_dir=models", *options] for _, _, module, *options in STAGES]
    for (code, says, *options), (answer, said) in zip(STAGES, refused(here, *cases), strict=True):
        assert answer == code, (options, said)
        assert says in said, options
