"""The scripts of tools/deploy: help, environment, and all of them in a row."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from deploy_toys import FIELDS, WAVEGLOW_FIELDS, models_dir, report_of, run_script

from conftest import ROOT, script_environment
from tools.deploy import run
from tools.deploy.benchmark import perf


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("run.sh", "--voice NAME"),
        ("export_model/get_datasets_and_models.sh", "--voice=NAME"),
        ("export_model/run.sh", "--random"),
        ("gen_model/run.sh", "--no-compare"),
        ("infer_python/run.sh", "--log_file FILE"),
        ("benchmark/perf.sh", "--quant_modes"),
        ("triton/serve.sh", "--http-port=8000"),
    ],
)
def test_help_is_the_head_and_that_of_the_program(script, options, tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "tools/deploy" / script, "--help"],
        cwd=tmp_path, env=script_environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(rf"[ /]{Path(script).name}\s", done.stdout.partition("usage: ")[0])  # an example of its use
    assert options in done.stdout


def test_scripts_run_by_their_name():
    scripts = list((ROOT / "tools/deploy").rglob("*.sh"))
    assert len(scripts) > 5
    for script in scripts:
        runs = script.name not in ("env.sh", "common.sh")
        assert bool(script.stat().st_mode & stat.S_IXUSR) == runs


def test_env_makes_the_folder_that_checkpoints_are_fetched_to(tmp_path):
    fetch = f"source '{ROOT}/tools/deploy/env.sh' && cd $MODEL_PATH && pwd"
    environment = {"PATH": os.environ["PATH"], "MODEL_PATH": str(tmp_path / "data/models/")}
    done = subprocess.run(["bash", "-euc", fetch], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == f"{tmp_path}/data/models\n"


def test_env_can_be_sourced_anywhere(tmp_path):
    (tmp_path / "neu ware").mkdir()
    show = 'echo "$PROJ_ROOT_PATH|$MODEL_PATH|$NEUWARE_HOME|$LD_LIBRARY_PATH"'
    done = subprocess.run(
        ["bash", "-euc", f"source '{ROOT}/tools/deploy/env.sh'; source '{ROOT}/tools/deploy/env.sh'; {show}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], "NEUWARE_HOME": str(tmp_path / "neu ware")},
    )  # fmt: skip
    here, home = ROOT / "tools/deploy", tmp_path / "neu ware"
    assert done.stdout == f"{here}|{here}/models|{home}|{home}/lib64\n"


@pytest.mark.slow
def test_all_of_it_without_a_network(tmp_path):
    """Options with their values behind a blank reach every program that they are for."""
    given = [part for kind in ("tacotron2", "waveglow") for part in (f"--{kind}", f"{models_dir()}/{kind}.safetensors")]
    options = [
        "--engine",
        "torch",
        "--models_dir",
        "my models",
        "--quant_mode",
        "int8",
        "--num_iters",
        "1",
        "-o",
        "wavs",
    ]
    done = run_script("run.sh", *given, *options, "-o", "wavs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch, int8, batch 1, 128 characters" in done.stdout
    assert list(report_of(done.stdout)["dev[0]"]) == FIELDS + WAVEGLOW_FIELDS
    assert (tmp_path / "wavs/dev0_0.wav").exists()
    assert sorted(path.name for path in (tmp_path / "my models").iterdir()) == ["onnx", "torch_int8"]


@pytest.mark.parametrize("module", [run, perf])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--num_iter=1"], "unrecognized arguments: --num_iter=1"),
        (["--num_iters", "0"], "--num_iters must be at least 1"),
        (["--engine"], "--engine: expected one argument"),
        (["--engine", "tensorrt"], "invalid choice: 'tensorrt'"),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_done(run_here, tmp_path, module, options, says):
    done = run_here(module.main, "--models_dir=models", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_but_not_whole_is_not_replaced_by_random_weights(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/nvidia_tacotron2pyt_fp16_20190427.part").write_bytes(b"half")
    done = run_script("run.sh", f"--models_dir={tmp_path}", NGC_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot download" in done.stderr
    assert not (tmp_path / "onnx").exists()
