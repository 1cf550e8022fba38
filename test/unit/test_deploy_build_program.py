"""The program that builds engines: what it is told, what it refuses, and no folder that only looks complete."""

import errno
import json
import os
import re
import shutil
import subprocess

import pytest
from deploy_toys import SEEDS, TEXTS, make, models_dir, run_script, start, to_build

from common.folder_lock import sole_writer
from common.program import UserError
from conftest import ROOT, script_environment
from tools.deploy.artifacts import read_contents
from tools.deploy.gen_model import build, building


@pytest.mark.parametrize(
    ("failure", "raises", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError, "cannot write .*: No space left on device"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_build_that_breaks_off_leaves_what_was_there(tmp_path, monkeypatch, failure, raises, says):
    make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def to_int8(model, on_card):
        if any(node.op_type == "Loop" for node in model.graph.node):  # the second graph, the first is done
            raise failure

    monkeypatch.setattr("tools.deploy.engines.quantization.to_int8", to_int8)
    with pytest.raises(raises, match=says):
        make(tmp_path, quant_mode="int8")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_a_full_disk_leaves_nothing_and_is_said_in_a_line(tmp_path, engine):
    script = ROOT / "tools/deploy/gen_model/run.sh"
    options = [
        "force_float32",
        "1",
        "2",
        "8",
        f"--engine={engine}",
        f"--models_dir={models_dir()}",
        "-o",
        tmp_path / "x",
    ]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 3 && bash "$@"', "bash", script, *options],
        env=script_environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"x/.unfinished cannot be written to|cannot write .*: File too large", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert list((tmp_path / "x").iterdir()) == []


def test_a_graph_of_the_users_own_is_built_and_a_file_that_is_no_such_graph_refused(tmp_path):
    onnx_folder = models_dir() / "onnx"
    shutil.copy(onnx_folder / "postnet.onnx", tmp_path / "mine.onnx")
    contents = make(tmp_path / "engines", graphs={"postnet": tmp_path / "mine.onnx"})
    start(tmp_path / "engines", contents)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    for engine, name, file, says in (
        ("onnxruntime", "postnet", "broken.onnx", "--postnet: .*broken.onnx is no ONNX graph"),
        ("onnxruntime", "postnet", "nowhere.onnx", "--postnet: .*No such file"),
        ("onnxruntime", "encoder", "mine.onnx", "mine.onnx has mel_outputs, mel_lengths where sequences, sequence_len"),
        ("onnxruntime", "decoder_iter", "mine.onnx", "mine.onnx has mel_outputs, mel_lengths where decoder_input"),
        ("torch", "postnet", "mine.onnx", "--postnet would not be used: torch is built from the checkpoints"),
    ):
        with pytest.raises(UserError, match=says):
            make(tmp_path / "engines", engine, graphs={name: tmp_path / file})
    read_contents(tmp_path / "engines", "onnxruntime", "")  # what was there before stays


def test_what_a_build_measures_and_for_which_sizes(run_here, tmp_path, monkeypatch):
    """float32 costs nothing, and what others cost is not measured if nobody wants to know."""
    monkeypatch.setattr(building, "measure_cost", lambda *_: {"tacotron2": 0.5, "waveglow": 0.25})
    (tmp_path / "my.json").write_text(json.dumps({"ranges": {"batch": [2, 3, 5]}}))
    given = [f"--models_dir={models_dir()}", "--json=my.json", "-o", "engines"]
    for options, measured in (
        (["--quant_mode=force_float32"], False),
        (["--quant_mode=force_float16", "--no-compare"], False),
        (["--quant_mode=force_float16"], True),
    ):
        done = run_here(build.main, *options, *given)
        assert done.returncode == 0, done.stderr
        contents = read_contents(tmp_path / "engines", "onnxruntime", "")
        assert (bool(contents.cost), contents.ranges["batch"]) == (measured, [2, 3, 5])


def test_engines_with_other_options_are_built_again(tmp_path):
    for spinning in (False, True):
        make(tmp_path, spinning=spinning)
        assert read_contents(tmp_path, "onnxruntime", "").options == {"spinning": spinning}


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["force_float32", "8", "4", "1"], 1, "batch is [8, 4, 1]: must be the smallest, usual and largest"),
        (["force_float32", "0", "1", "2"], 2, "--bs is 0, must be 1 to 1024"),
        (["force_int4", "1", "4", "8"], 2, "invalid choice: 'force_int4'"),
        (["force_float32", "1", "four", "8"], 2, "--bs/-bs/--batch-size: must be numbers, such as 0,1, not '1 four 8'"),
        (["force_float32", "1", "4", "8", "--bs=1,2"], 1, "batch is [1, 2]: must be the smallest, usual and largest"),
        (["force_float32", "1", "4", "8", "--engine=tensorrt"], 2, "invalid choice: 'tensorrt'"),
        (["force_float32", "1", "4", "8", "--json=nowhere.json"], 1, "cannot read the config nowhere.json"),
        (
            ["force_float32", "1", "4", "8", "--models_dir=nothing here"],
            1,
            "export_model/run.sh '--models_dir=nothing here'",
        ),
    ],
)
def test_what_is_asked_for_wrongly_is_said_in_a_line(run_here, monkeypatch, options, code, says):
    monkeypatch.setenv("MODEL_PATH", str(models_dir()))
    done = run_here(build.main, *to_build(*options))
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_second_run_in_one_folder_is_refused_with_code_75(tmp_path):
    build = ["gen_model/run.sh", "force_float32", "1", "4", "8", f"--models_dir={models_dir()}", "-o", tmp_path]
    fetch = ["export_model/get_datasets_and_models.sh", f"--models_dir={models_dir()}"]
    for folder, runs in ((models_dir(), [build, fetch]), (tmp_path, [build])):
        with sole_writer(folder):
            for run in runs:
                done = run_script(*run)
                assert done.returncode == 75
                assert done.stderr.startswith(f"error: another run is writing to {folder}: process {os.getpid()} on ")
                assert len(done.stderr.splitlines()) == 1


def test_the_script_builds(tmp_path):
    shutil.copytree(models_dir(), tmp_path / "my models")
    (tmp_path / "small.json").write_text(json.dumps({"ranges": {"text": [4, 8, 16]}}))
    options = ["force_float16", "1", "2", "4", "--models_dir=my models", "--json=small.json", "-o", "my engines"]
    done = run_script("gen_model/run.sh", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    contents = read_contents(tmp_path / "my engines", "onnxruntime", "")
    of_tacotron2, of_waveglow = contents.cost["tacotron2"], contents.cost["waveglow"]
    costs = f"mel L1 (natural logarithm) of Tacotron2 {of_tacotron2:.2g}, of WaveGlow {of_waveglow:.2g}"
    assert f"force_float16 costs: {costs}" in done.stdout
    assert contents.ranges == {"batch": [1, 2, 4], "text": [4, 8, 16], "mel": [32, 768, 1664], "steps": [1, 768, 1664]}
    pipeline, _ = start(tmp_path / "my engines", contents)
    pipeline.spectrograms(TEXTS[:1], SEEDS[:1])
