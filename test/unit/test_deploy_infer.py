"""Inference and the latency report: what is asked for is done, on all devices, and measured right."""

import json
import os
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
import soundfile
from test_deploy_engines import FAKE, make
from test_deploy_export import models_dir

from common.program import UserError
from conftest import ROOT, script_environment
from tools.deploy import devices, infer, latency, perf
from tools.deploy.latency import Iteration, Measured, percentile
from tools.deploy.work import Clip, Wavs, Work

FIELDS = [
    "Iterations",
    "Preprocessing average (seconds)",
    "Number of mels per audio average",
    "Encoder latency average (seconds)",
    "Decoder latency average (seconds)",
    "Postnet latency average (seconds)",
    "Latency average (seconds)",
    "Latency std (seconds)",
    *[f"Latency cl {percent} (seconds)" for percent in (50, 90, 95, 99, 100)],
    "tacotron2_items_per_sec average",
]
WAVEGLOW_FIELDS = [
    "Throughput average (samples/sec)",
    "Postprocessing average (seconds)",
    "Waveglow latency average (seconds)",
]


@cache
def engines():
    """A folder of engines, for batches of 1, 2 and 4."""
    folder = models_dir() / "onnxruntime_force_float32"
    make(folder, batch=(1, 2, 4))
    return folder


def run_infer(*options, cwd=None, **environment):
    return subprocess.run(
        ["bash", ROOT / "tools/deploy/infer_python/run.sh", *options, f"--models_dir={engines()}"],
        cwd=cwd, env=script_environment() | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def report_of(text: str) -> dict[str, dict[str, float]]:
    """Head line -> its fields."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("===="):
            found[line.strip("=")] = {}
        elif " = " in line:
            name, _, value = line.partition(" = ")
            found[next(reversed(found))][name] = float(value)
    return found


def iteration(**changes):
    values = dict.fromkeys(Iteration.__dataclass_fields__, 1.0) | dict(batch=1, mels=100, samples=25600)
    return Iteration(**(values | changes))


two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is one device")

# The report


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [1, 2, 2, 2, 2]), (7, [4, 7, 7, 7, 7]), (20, [10, 18, 19, 20, 20]),
                        (1000, [500, 900, 950, 990, 1000])]
)  # fmt: skip
def test_percentiles_are_right_for_any_number_of_iterations(n, expected):
    assert [percentile(range(1, n + 1), percent) for percent in (50, 90, 95, 99, 100)] == expected


def test_fields_mean_what_they_say():
    iterations = [
        iteration(encoder=1, latency=4.0, tacotron2=2.0, batch=3, mels=100, samples=300 * 256),
        iteration(encoder=2, latency=2.0, tacotron2=1.0, batch=3, mels=50, samples=150 * 256),
    ]
    report = latency.summarize(iterations)
    assert list(report) == FIELDS[1:] + WAVEGLOW_FIELDS
    assert report["Encoder latency average (seconds)"] == 1.5
    assert report["Number of mels per audio average"] == 75
    assert report["Latency average (seconds)"] == 3
    assert report["Latency std (seconds)"] == 1
    assert report["tacotron2_items_per_sec average"] == 150
    assert report["Throughput average (samples/sec)"] == 75 * 256


def test_devices_add_up():
    results = {0: Measured("a", [iteration()] * 2), 3: Measured("b", [iteration(tacotron2=0.5, latency=0.25)])}
    report = latency.report(results)
    assert [device["device"] for device in report["devices"]] == [0, 3]
    assert report["sum"] == {
        "tacotron2_items_per_sec average": 100 + 200,
        "Throughput average (samples/sec)": 25600 + 4 * 25600,
    }


# The program


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


def test_without_waveglow(tmp_path):
    done = run_infer("force_float32", "1", "20", "--num_iters=1", "--no-waveglow", "-o", str(tmp_path))
    report = report_of(done.stdout)["dev[0]"]
    assert list(report) == FIELDS
    assert not list(tmp_path.glob("*.wav"))


def test_all_batches_that_were_built_for(tmp_path):
    done = run_infer("force_float32", "1", "20", "--num_iters=1", "--warmup_iters=0", "--all", "-o", str(tmp_path))
    heads = [line for line in done.stdout.splitlines() if line.endswith("20 characters")]
    assert [head.split(", ")[2] for head in heads] == ["batch 1", "batch 2", "batch 4"]
    assert [run["batch"] for run in json.loads((tmp_path / "latency.json").read_text())["runs"]] == [1, 2, 4]


@two_cores
def test_devices_share_the_work(tmp_path):
    options = ["--devices=1,0", "--num_iters=5", "--warmup_iters=1", "-o", str(tmp_path)]
    done = run_infer("force_float32", "1", "20", *options)
    assert done.returncode == 0, done.stderr
    report = report_of(done.stdout)
    assert list(report) == ["dev[1]", "dev[0]", "sum"]
    assert [report[name]["Iterations"] for name in report] == [3, 2, 5]
    for name in ("tacotron2_items_per_sec average", "Throughput average (samples/sec)"):
        assert report["sum"][name] == pytest.approx(report["dev[0]"][name] + report["dev[1]"][name], rel=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["dev0_0.wav", "dev1_0.wav"]


@two_cores
def test_a_text_is_spoken_line_by_line(tmp_path):
    long = "This line is longer than any engine takes in one go, so it is cut. " * 4
    (tmp_path / "my text.txt").write_text(f"Hello.\n\n...\n{long}\nBye.\n")
    together, shared = tmp_path / "together", tmp_path / "shared"
    done = run_infer("force_float32", "4", "1", "--text=my text.txt", "-o", str(together), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in together.glob("*.wav")) == ["out_0001.wav", "out_0004.wav", "out_0005.wav"]
    assert done.stdout.splitlines()[1] == "onnxruntime, force_float32, batch 4, a text"
    done = run_infer("force_float32", "1", "1", "--text=my text.txt", "-o", str(shared), "--devices=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in shared.iterdir()) == sorted(path.name for path in together.iterdir())
    short, long = (soundfile.info(together / f"out_{number:04}.wav").frames for number in (1, 4))
    assert long > short


def test_clips_of_one_wav_are_joined_with_pauses(tmp_path):
    from tools.deploy.folder import read_contents

    wavs = Wavs(read_contents(engines(), "onnxruntime", ""))
    wavs.add(Clip("", 0, tmp_path / "a.wav", pause=0.5, ends=False), np.full(100, 0.5, np.float32))
    assert not (tmp_path / "a.wav").exists()
    wavs.add(Clip("", 0, tmp_path / "a.wav"), np.full(50, 0.25, np.float32))
    audio = soundfile.read(tmp_path / "a.wav")[0]
    assert audio.tolist() == [*[0.5] * 100, *[0.0] * 11025, *[0.25] * 50]


def test_perf_writes_a_table_and_a_plot(tmp_path, monkeypatch, capsys):
    engines()
    options = ["--quant_modes", "force_float32", "--bs=1,4", "--il=20", "--num_iters=2", "--warmup_iters=0"]
    monkeypatch.setattr(sys, "argv", ["perf", *options, f"--models_dir={models_dir()}", "-o", str(tmp_path)])
    perf.main()
    table = [line.split(" | ") for line in (tmp_path / "perf.md").read_text().splitlines() if line.startswith("|")]
    assert [row[1:4] for row in table[2:]] == [["20", "force_float32", "1"], ["20", "force_float32", "4"]]
    assert all(float(row[4].replace(",", "")) > 0 and float(row[5].replace(",", "")) > 0 for row in table[2:])
    assert (tmp_path / "perf.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "perf.json").read_text())["runs"]) == 2


# Bad input


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["force_float32", "5", "128"], 1, "--bs is 5, and these engines are built for 1 to 4"),
        (["force_float32", "1", "257"], 1, "--il is 257, and these engines are built for 4 to 256"),
        (["force_float32", "1", "3"], 1, "--il is 3, and these engines are built for 4 to 256"),
        (["int4", "1", "128"], 2, "invalid choice: 'int4'"),
        (["int8", "1", "128"], 1, "is force_float32, --quant_mode says int8"),
        (["force_float32", "1", "128", "--engine=torch"], 1, "is for onnxruntime, not for torch: run gen_model/run.sh"),
        (["force_float32", "1", "128", "--devices=99"], 1, "device 99 does not exist"),
        (["force_float32", "1", "128", "--devices=0,99"], 1, "on device 99: device 99 does not exist"),
        (["force_float32", "1", "128", "--devices=0,0"], 2, "argument --devices: invalid numbers value: '0,0'"),
        (["force_float32", "1", "128", "--devices=zero"], 2, "argument --devices: invalid numbers value: 'zero'"),
        (["force_float32", "1", "128", "--num_iters=0"], 2, "--num_iters must be at least 1"),
        (["force_float32", "1", "128", "--devices=0,1", "--num_iters=1"], 2, "--num_iters must be at least 2"),
        (["force_float32", "1", "128", "--text=nowhere.txt"], 1, "nowhere.txt"),
        (["force_float32", "1"], 2, "wanted are QUANT_MODE BS INPUT_LENGTH"),
    ],
)
def test_what_is_asked_for_wrongly_is_said_in_a_line(tmp_path, options, code, says):
    done = run_infer(*options, "-o", str(tmp_path), cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["...\n--\n", ""])
def test_a_text_with_nothing_to_speak(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    done = run_infer("force_float32", "1", "1", "--text=a.txt", "-o", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing of a.txt can be spoken, it needs letters or digits" in done.stderr


def works(count):
    from tools.deploy.folder import read_contents

    contents = read_contents(engines(), "onnxruntime", "")
    clip = Clip("Hello.", 1, engines() / "unused.wav")
    return [Work(engines(), contents, i, count, [], [[clip]] * 3, 0.6, with_waveglow=False) for i in range(count)]


@two_cores
def test_a_process_that_dies_ends_the_others(monkeypatch):
    monkeypatch.setattr(devices, "_process", die_or_wait)
    began = time.monotonic()
    with pytest.raises(UserError, match="device 1: its process ended with code -9"):
        devices.run_on_devices(works(2))
    assert time.monotonic() - began < 60


def die_or_wait(work, connection):
    if work.device == 1:
        os.kill(os.getpid(), 9)
    connection.recv()


def test_devices_on_cards(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FAKE)
    make(tmp_path / "cards", "magicmind")
    options = ["force_float32", "2", "20", "--engine=magicmind", "--devices=0,1", "--num_iters=2", "--warmup_iters=0"]
    done = subprocess.run(
        ["bash", ROOT / "tools/deploy/infer_python/run.sh", *options, "-o", tmp_path, f"--models_dir={tmp_path}/cards"],
        env=script_environment() | {"PYTHONPATH": str(FAKE)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(report_of(done.stdout)) == ["dev[0]", "dev[1]", "sum"]
    assert "MagicMind on MLU 1" in done.stdout


def test_sentence_is_the_seeds():
    sentence = infer.sentence(333)
    assert len(sentence) == 333
    assert sentence.endswith("shapeliness of the letters themselves.")
    assert sentence.count("The forms of printed letters") == 2


# The scripts


def test_every_script_has_help(tmp_path):
    scripts = [path for path in (ROOT / "tools/deploy").rglob("*.sh") if path.name not in ("env.sh", "common.sh")]
    for script in scripts:
        done = subprocess.run(["bash", script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert "bash " in done.stdout
        assert "--models_dir=" in done.stdout


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


def test_all_of_it_without_a_network(tmp_path):
    options = [f"--{kind}={models_dir()}/{kind}.safetensors" for kind in ("tacotron2", "waveglow")]
    done = subprocess.run(
        ["bash", ROOT / "tools/deploy/run.sh", *options, "--models_dir=my models", "--num_iters=1", "-o", "my wavs"],
        cwd=tmp_path, env=script_environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(report_of(done.stdout)["dev[0]"]) == FIELDS + WAVEGLOW_FIELDS
    assert (tmp_path / "my wavs/dev0_0.wav").exists()
