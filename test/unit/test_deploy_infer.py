"""Inference: what is asked for is done and reported, and what cannot be done is said in a line."""

import json

import numpy as np
import pytest
import soundfile
from deploy_toys import (
    FIELDS,
    WAVEGLOW_FIELDS,
    make,
    report_of,
    run_infer,
    to_infer,
)

from tools.deploy.infer_python import infer


def test_the_script_speaks_and_reports(tmp_path):
    options = ["--num_iters=3", "--warmup_iters=1", "--log_file=my logs/latency.txt", "-o", "my wavs"]
    done = run_infer("force_float32", "2", "20", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "my logs/latency.txt").read_text()
    assert text.startswith("onnxruntime, force_float32, batch 2, 20 characters\n")
    report = report_of(text)
    assert list(report) == ["dev[0]"]
    assert list(report["dev[0]"]) == FIELDS + WAVEGLOW_FIELDS
    assert report["dev[0]"]["Iterations"] == 3
    saved = json.loads((tmp_path / "my logs/latency.txt.json").read_text())["runs"]
    assert len(saved[0]["devices"][0]["iterations"]) == 3
    assert saved[0]["devices"][0]["report"]["Latency average (seconds)"] == pytest.approx(
        report["dev[0]"]["Latency average (seconds)"], abs=1e-6
    )
    for i in range(2):
        audio, rate = soundfile.read(tmp_path / f"my wavs/dev0_{i}.wav")
        assert rate == 22050
        assert len(audio) % 256 == 0
        assert np.abs(audio).max() > 0


def test_with_all_each_batch_that_was_built_for_is_measured(run_here, tmp_path):
    once = ["--num_iters=1", "--warmup_iters=0"]
    done = run_here(infer.main, *to_infer("force_float32", "1", "20", *once, "--all", "-o", tmp_path))
    heads = [line for line in done.stdout.splitlines() if line.endswith("20 characters")]
    assert [head.split(", ")[2] for head in heads] == ["batch 1", "batch 2", "batch 4"]
    assert [run["batch"] for run in json.loads((tmp_path / "latency.json").read_text())["runs"]] == [1, 2, 4]


def test_a_batch_that_is_built_for_twice_is_measured_once(run_here, tmp_path):
    make(tmp_path / "engines", batch=(2, 2, 2))
    options = ["--all", "--num_iters=1", "--warmup_iters=0", "--il=20", "--no-waveglow"]
    done = run_here(infer.main, "--models_dir=engines", "-o", "out", *options)
    assert done.returncode == 0, done.stderr
    assert [run["batch"] for run in json.loads((tmp_path / "out/latency.json").read_text())["runs"]] == [2]


def test_a_text_is_spoken_line_by_line(tmp_path):
    long = "This line is longer than any engine takes in one go, so it is cut. " * 4
    (tmp_path / "my text.txt").write_text(f"Hello 漢.\n\n...\n{long}\nBye.\n")
    wavs = tmp_path / "my wavs"
    done = run_infer("force_float32", "4", "1", "--text=my text.txt", "-o", str(wavs), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in wavs.glob("*.wav")) == ["out_0001.wav", "out_0004.wav", "out_0005.wav"]
    assert "onnxruntime, force_float32, batch 4, a text" in done.stdout.splitlines()
    short, long = (soundfile.info(wavs / f"out_{number:04}.wav").frames for number in (1, 4))
    assert long > short
    assert "line 1: transliterated: '漢' as 'han '" in done.stderr
    assert "line 3: nothing is left to speak" in done.stderr
    assert "6 of 6 clips find no end and are cut off at the limit of frames" in done.stderr


def test_a_folder_in_the_place_of_a_wav_is_said(run_here, tmp_path):
    (tmp_path / "dev0_0.wav").mkdir()
    once = ["--num_iters=1", "--warmup_iters=0"]
    done = run_here(infer.main, *to_infer("force_float32", "1", "20", *once, "-o", tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {tmp_path}/dev0_0.wav: it is a folder, move it\n"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["force_float32", "5", "128"], 1, "--bs is 5, and these engines are built for 1 to 4"),
        (["force_float32", "1", "257"], 1, "--il is 257, and these engines are built for 4 to 256"),
        (["force_float32", "1", "3"], 1, "--il is 3, and these engines are built for 4 to 256"),
        (["int4", "1", "128"], 2, "invalid choice: 'int4'"),
        (["int8", "1", "128"], 1, "is force_float32, and int8 is asked for: name another quant mode"),
        (
            ["force_float32", "1", "128", "--engine=torch"],
            1,
            "is for onnxruntime, not for torch: name another",
        ),
        (["force_float32", "1", "128", "--devices=99"], 1, "device 99 does not exist"),
        (["force_float32", "1", "128", "--devices=0,99"], 1, "on device 99: device 99 does not exist"),
        (
            ["force_float32", "1", "128", "--devices=0,0"],
            2,
            "name each once, as in 0,1, and not '0 0'",
        ),
        (
            ["force_float32", "1", "128", "--devices=zero"],
            2,
            "must be numbers, such as 0,1, not 'zero'",
        ),
        (["force_float32", "1", "128", "--num_iters=0"], 2, "--num_iters must be at least 1"),
        (["force_float32", "1", "128", "--devices=0,1", "--num_iters=1"], 2, "--num_iters must be at least 2"),
        (["force_float32", "1", "128", "--devices=-1"], 2, "--devices/--device: must be numbers"),
        (["force_float32", "1", "128", "--sigma=nan"], 2, "--sigma must be at least 0"),
        (["force_float32", "1", "128", "--text=nowhere.txt"], 1, "nowhere.txt"),
        (["force_float32", "1,2", "128", "--text=a.txt"], 2, "--text goes with one --bs"),
        (["force_float32", "1", "128", "--text=a.txt", "--all"], 2, "neither with --all"),
        (["force_float32", "1", "128", "--text=a.txt", "--no-waveglow"], 2, "nor with --no-waveglow"),
        (["force_float32", "1", "128", "--log_file=/dev/null/x"], 1, "cannot write to output_directory /dev/null"),
    ],
)
def test_what_is_asked_for_wrongly_is_said_in_a_line(run_here, tmp_path, options, code, says):
    done = run_here(infer.main, *to_infer(*options, "-o", tmp_path))
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
