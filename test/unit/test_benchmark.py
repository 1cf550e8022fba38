"""tools/benchmark.py: what is measured, and the table of it. How fast anything is, no test says."""

import argparse
import json
import subprocess
import sys

import pytest

from conftest import ROOT
from runs import CPU
from tools import benchmark
from tools.benchmark import Measurement, planned, table
from tools.speed.jobs import DATA, JOBS, Job, sizes_on, tacotron2_batch, waveglow_batch
from tools.speed.measure import LOADING, NVIDIA, ONNX_RUNTIME, OURS, make_job, time_job


def run(*args):
    command = [sys.executable, "tools/benchmark.py", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_whole_benchmark(tmp_path):
    """The quickest of the jobs at its real size."""
    done = run("tacotron2-infer", "--precision", "half", "--repeats", 1, "-o", tmp_path, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmark.md").read_text() in done.stdout
    (found,) = json.loads((tmp_path / "benchmark.json").read_text())["measurements"]
    assert (found["job"], found["implementation"], found["precision"]) == ("tacotron2-infer", OURS, "half")
    assert found["units"] == 200 and len(found["seconds"]) == 2
    assert 1e8 < found["peak_memory"] < 1e10
    assert "| tacotron2-infer | this repository | half |" in done.stdout


def test_bad_input(tmp_path):
    for args, code, said in [
        (["--repeats", "0"], 2, "--repeats is 0"),
        (["waveglow-sing"], 2, "waveglow-sing"),
        (["--device", "npu"], 1, "npu"),
        (["waveglow-infer", "--peer_path", tmp_path], 1, "git clone https://github.com/NVIDIA/waveglow"),
    ]:
        done = run(*args, "-o", tmp_path / "out")
        assert done.returncode == code
        assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_what_fails_in_its_process_is_said(monkeypatch):
    with pytest.raises(benchmark.UserError, match=r"No module named tools\.speed\.nothing"):
        benchmark.start("tools.speed.nothing")
    monkeypatch.setattr(benchmark, "LIMIT", 0.01)
    with pytest.raises(benchmark.UserError, match="more than"):
        benchmark.start("tools.speed.measure", "{}")


def test_each_call_is_timed_behind_a_warm_up():
    calls = []
    found = time_job(Job(lambda: calls.append(1), 7), CPU, repeats=3)
    assert len(calls) == 2 + 3 and len(found["seconds"]) == 3
    assert found["units"] == 7 and found["peak_memory"] > 1e7


def test_what_is_planned():
    everything = argparse.Namespace(peer_path="peers", precision=["float32", "half", "int8"])
    for job in JOBS:
        found = [(each.implementation, each.precision) for each in planned(job, everything, CPU)]
        assert found[0] == (NVIDIA, "float32")
        assert {(OURS, "float32"), (OURS, "half")} < set(found)
        assert ((OURS, "int8") in found) == (job == "waveglow-infer")
        assert ((ONNX_RUNTIME, "int8") in found) == job.endswith("infer")
        assert ((LOADING, "float32") in found) == (job in DATA) == job.endswith("train")
    alone = argparse.Namespace(peer_path=None, precision=["half"])
    assert [each.precision for each in planned("waveglow-infer", alone, CPU)] == ["half"]


@pytest.mark.parametrize("job", DATA)
def test_loading_makes_what_a_step_takes(job, tmp_path):
    loading = make_job(job, LOADING, "float32", CPU, tmp_path)
    loading.work()
    assert loading.units > 16 * 500  # 16 clips of 6.6 s


def test_batches_are_of_the_sizes_named():
    sizes = sizes_on(CPU)
    assert waveglow_batch(sizes)["audio"].shape == (2, 8000)
    batch = tacotron2_batch(sizes)
    assert batch["text"].shape == (16, 150) and batch["mel"].shape == (16, 80, 870)
    assert [batch["mel_lengths"].min(), batch["text_lengths"].min()] == [350, 60]
    for name, last in (("text", 60), ("mel", 350)):
        assert (batch[name][-1, ..., last:] == 0).all() and (batch[name][-1, ..., last - 1] != 0).all()


def test_the_table():
    peer = Measurement("waveglow-train", NVIDIA, "float32", 100, [2.0, 1.0, 4.0], 4_000_000_000)
    ours = Measurement("waveglow-train", OURS, "half", 100, [0.5, 0.25, 1.0], 1_000_000_000)
    loading = Measurement("waveglow-train", LOADING, "float32", 100, [0.1], 2_000_000_000)
    other = Measurement("tacotron2-infer", OURS, "half", 100, [0.5], 1_000_000_000)
    assert (peer.rate, ours.rate) == (50, 200)
    lines = table([peer, ours, loading, other]).splitlines()[2:]
    assert lines == [
        "| waveglow-train | NVIDIA | float32 | 50 samples | 25-100 | 1.00 | 4.00 GB (1.00) |",
        "| waveglow-train | this repository | half | 200 samples | 100-400 | 4.00 | 1.00 GB (0.25) |",
        "| waveglow-train | data loading | float32 | 1,000 samples | 1,000-1,000 | - | 2.00 GB (0.50) |",
        "| tacotron2-infer | this repository | half | 200 frames | 200-200 | - | 1.00 GB |",
    ]
