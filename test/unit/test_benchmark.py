"""tools/benchmark.py: what is measured, and the table of it. How fast anything is, no test says."""

import argparse
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from deploy_toys import make
from torch.nn import functional as F

from common.layers.int8 import why_no_int8
from common.layers.matmul import constant_linear
from conftest import ROOT
from runs import CPU
from tools import benchmark
from tools.benchmark import peaks, planned
from tools.speed import jobs, measure, peers
from tools.speed.jobs import DATA, JOBS, Job
from tools.speed.measure import (
    LOADING,
    NVIDIA,
    ONNX_RUNTIME,
    OURS,
    PEAK,
    PYTORCH,
    count_operations,
    is_counted,
    make_job,
    matrix_product,
)  # fmt: skip
from tools.speed.table import Measurement, plot, table


def run(*args):
    command = [sys.executable, "tools/benchmark.py", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_whole_benchmark_writes_what_it_measured(tmp_path):
    """The quickest of the jobs at its real size."""
    done = run("tacotron2-infer", "--precision", "half", "--repeats", 1, "-o", tmp_path, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmark.md").read_text() in done.stdout
    peak, found = json.loads((tmp_path / "benchmark.json").read_text())["measurements"]
    assert (peak["job"], peak["precision"], peak["units"]) == (PEAK, "half", 2 * 2048**3)
    assert (found["job"], found["implementation"], found["precision"]) == ("tacotron2-infer", OURS, "half")
    assert found["units"] == 200 and len(found["seconds"]) == 2
    assert 1e8 < found["peak_memory"] < 1e10
    assert 9e9 < found["operations"] < 12e9  # 18 M weights of the decoder and 4 M of the postnet for each frame
    assert "| tacotron2-infer | 1 | this repository | half |" in done.stdout


@pytest.mark.slow
def test_bad_input_is_said_in_one_line(tmp_path):
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


@pytest.fixture
def tiny(monkeypatch):
    """Jobs of no size, and no product of large matrices."""
    for name in JOBS:
        monkeypatch.setitem(JOBS, name, lambda device, precision, batch: Job(lambda: torch.ones(2) + 1, 7))
    monkeypatch.setattr(measure, "matrix_product", lambda device, precision: Job(lambda: None, 9))


def benchmark_in_one_process(monkeypatch, folder, *options):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device=cpu", "--one_process", *options, "-o", str(folder)])
    benchmark.main()
    return json.loads((folder / "benchmark.json").read_text())["measurements"]


def test_one_process_measures_the_same_things(tiny, monkeypatch, tmp_path):
    found = benchmark_in_one_process(monkeypatch, tmp_path, "voice-infer", "--repeats=2", "--precision", "tf32", "half")
    assert [(each["job"], each["precision"], each["units"], len(each["seconds"])) for each in found] == [
        (PEAK, "tf32", 9, 4), (PEAK, "half", 9, 4), ("voice-infer", "tf32", 7, 4), ("voice-infer", "half", 7, 4),
    ]  # fmt: skip


def test_what_was_measured_in_time_is_written(tiny, monkeypatch, tmp_path):
    clock = iter(range(0, 1000, 10))  # measuring takes 10 s each
    monkeypatch.setattr(benchmark, "time", argparse.Namespace(monotonic=lambda: next(clock)))
    found = benchmark_in_one_process(monkeypatch, tmp_path, "voice-infer", "--limit=15")
    assert [each["job"] for each in found] == [PEAK]


def test_operations_are_counted():
    matrix = torch.ones(6, 4, requires_grad=True)
    assert count_operations(Job(lambda: torch.ones(5, 6) @ matrix, 1)) == 2 * 5 * 6 * 4
    packed = constant_linear(matrix)
    assert count_operations(Job(lambda: packed(torch.ones(5, 4)), 1)) == 2 * 5 * 6 * 4
    x, kernel = torch.ones(1, 6, 7, requires_grad=True), torch.ones(4, 6, 1, requires_grad=True)
    forward_and_two_gradients = count_operations(Job(lambda: F.conv1d(x, kernel).sum().backward(), 1))
    assert forward_and_two_gradients == 3 * 2 * 7 * 6 * 4
    for precision in ("float32", "half"):
        product = matrix_product(CPU, precision)
        assert count_operations(product) == product.units
    counted = [is_counted(OURS, each) for each in ("float32", "half", "half, recomputed", "int8")]
    assert counted == [True, True, False, False] and not is_counted(NVIDIA, "float32")


def test_each_job_is_planned_for_all_who_can_do_it():
    everything = argparse.Namespace(peer_path="peers", precision=["float32", "half", "int8"])
    assert [each.precision for each in planned("voice-infer", everything, CPU)] == ["float32", "half"]
    for job in JOBS.keys() - {"voice-infer"}:
        found = [(each.implementation, each.precision) for each in planned(job, everything, CPU)]
        assert found[0] == (NVIDIA, "float32")
        assert {(OURS, "float32"), (OURS, "half")} < set(found)
        assert ((OURS, "int8") in found) == (job == "waveglow-infer" and not why_no_int8(CPU))
        assert ((ONNX_RUNTIME, "int8") in found) == job.endswith("infer")
        assert ((LOADING, "float32") in found) == (job in DATA) == job.endswith("train")
    alone = argparse.Namespace(peer_path=None, precision=["half"])
    assert [each.precision for each in planned("waveglow-infer", alone, CPU)] == ["half"]
    assert [each.precision for each in peaks(["int8", "half"])] == ["half"]


def test_on_cards_texts_are_spoken_together_but_by_nvidia_s_tacotron2():
    """Which cannot speak several at once."""
    card = argparse.Namespace(type="cuda")
    everything = argparse.Namespace(peer_path="peers", precision=["float32", "half"])
    found = [(each.implementation, each.precision, each.batch) for each in planned("tacotron2-infer", everything, card)]
    ours = [(OURS, precision, batch) for batch in (1, 4, 8) for precision in ("float32", "half")]
    assert found == [(NVIDIA, "float32", 1), (NVIDIA, "half", 1), *ours]


def test_compiled_training_is_measured_on_cards_alone():
    half = argparse.Namespace(peer_path=None, precision=["half"])
    on_a_card = [each.precision for each in planned("waveglow-train", half, argparse.Namespace(type="cuda"))]
    assert on_a_card[:3] == ["half", "half, recomputed", "half, compiled"]
    assert "half, compiled" not in [each.precision for each in planned("waveglow-train", half, CPU)]


@pytest.mark.parametrize("job", DATA)
def test_loading_makes_what_a_step_takes(job, tmp_path):
    loading = make_job(job, LOADING, "float32", 1, CPU, tmp_path)
    loading.work()
    assert loading.units > 16 * 500  # 16 clips of 6.6 s


def test_a_card_speaks_several_texts_at_once(monkeypatch):
    monkeypatch.setattr(jobs, "DECODED", 3)
    job = JOBS["tacotron2-infer"](CPU, "float32", 2)
    assert [mel.shape for mel in job.work()] == [(80, 3), (80, 3)] and job.units == 6


def test_the_table_compares_each_rate_with_nvidia_s_and_the_peak():
    peak = Measurement(PEAK, PYTORCH, "half", 0, 4_000_000_000, [2.0], 1_000_000_000)
    peer = Measurement("waveglow-train", NVIDIA, "float32", 2, 100, [2.0, 1.0, 4.0], 4_000_000_000)
    ours = Measurement("waveglow-train", OURS, "half", 2, 100, [0.5, 0.25, 1.0], 1_000_000_000, 500_000_000)
    again = Measurement("waveglow-train", OURS, "half, recomputed", 2, 100, [1.0], 1_000_000_000)
    loading = Measurement("waveglow-train", LOADING, "float32", 2, 100, [0.1], 2_000_000_000)
    other = Measurement("tacotron2-infer", OURS, "half", 1, 100, [0.5], 1_000_000_000)
    assert (peer.rate, ours.rate) == (50, 200)
    lines = table([peak, peer, ours, again, loading, other]).splitlines()[2:]
    assert lines == [
        "| matrix product | - | PyTorch | half | 2 GFLOP | 2-2 | - | - | 1.00 GB |",
        "| waveglow-train | 2 | NVIDIA | float32 | 50 samples | 25-100 | 1.00 | - | 4.00 GB (1.00) |",
        "| waveglow-train | 2 | this repository | half | 200 samples | 100-400 | 4.00 | 50% | 1.00 GB (0.25) |",
        "| waveglow-train | 2 | this repository | half, recomputed"
        " | 100 samples | 100-100 | 2.00 | 25% | 1.00 GB (0.25) |",
        "| waveglow-train | 2 | data loading | float32 | 1,000 samples | 1,000-1,000 | - | - | 2.00 GB (0.50) |",
        "| tacotron2-infer | 1 | this repository | half | 200 frames | 200-200 | - | - | 1.00 GB |",
    ]


@pytest.mark.parametrize(("kind", "units"), [("waveglow", 100 * 256), ("tacotron2", 5)])
def test_graphs_run_as_jobs_of_onnx_runtime(tmp_path, monkeypatch, kind, units):
    monkeypatch.setattr(peers, "DECODED", 5)
    make(tmp_path / "onnxruntime_force_float32")
    job = getattr(peers, f"onnxruntime_{kind}")(tmp_path, "force_float32")
    assert job.units == units
    assert np.isfinite(job.work()).all() and job.work().size


def test_the_plot_has_a_bar_for_each_measurement():
    ours = [Measurement("waveglow-infer", OURS, each, 1, 100, [1.0, 2.0, 4.0]) for each in ("float32", "half")]
    theirs = Measurement("waveglow-infer", NVIDIA, "float32", 1, 100, [4.0])
    axis, other = plot([theirs, *ours, Measurement("waveglow-train", OURS, "half", 2, 100, [1.0])]).axes
    assert [label.get_text() for label in axis.get_yticklabels()][-1] == "NVIDIA, float32"  # on top
    assert [bar.get_width() for bar in axis.patches] == [50, 50, 25]
    assert "waveglow-train, batch 2" in other.get_title(loc="left")
    spreads = [each.lines[2][0].get_segments()[0][:, 0].tolist() for each in axis.containers[::2]]
    assert spreads == [[25, 100], [25, 100], [25, 25]]  # from the slowest repeat to the fastest
    assert plot([Measurement(PEAK, PYTORCH, "half", 0, 100, [1.0])]).axes


def test_a_turn_adds_its_seconds_and_keeps_the_largest_memory(monkeypatch):
    turns = iter([([1.0, 2.0], 7), ([3.0], 5)])

    def start(module, asked):
        seconds, memory = next(turns)
        found = {"units": 4, "seconds": seconds, "peak_memory": memory, "operations": 6}
        return f"what a library says\n{json.dumps(found)}\n"

    monkeypatch.setattr(benchmark, "start", start)
    measurement = Measurement("voice-infer", OURS, "float32", 1)
    for _ in range(2):
        benchmark.measure(measurement, CPU, ROOT, argparse.Namespace(repeats=1, one_process=False))
    expected = Measurement("voice-infer", OURS, "float32", 1, 4, [1.0, 2.0, 3.0], 7, 6)
    assert measurement == expected


def test_bfloat16_is_asked_of_a_card_whose_half_is_another(tiny, monkeypatch):
    halves = {}

    def job(device, precision, _):
        halves[precision] = device.half
        return Job(lambda: None, 1)

    monkeypatch.setitem(JOBS, "voice-infer", job)
    for precision in ("bf16", "half"):
        measure.measured("voice-infer", OURS, precision, 1, replace(CPU, half=torch.float16), ROOT, repeats=1)
    assert (halves["bf16"], halves["half"]) == (torch.bfloat16, torch.float16)


def test_a_row_that_is_multiplied_twice_counts_once(tiny, monkeypatch):
    """As bfloat16 does on a CPU: what the job needs is what float32 takes."""
    rows = {"float32": 1, "half": 2}

    def job(device, precision, _):
        return Job(lambda: torch.ones(rows[precision], 6) @ torch.ones(6, 4), 1)

    monkeypatch.setitem(JOBS, "voice-infer", job)
    found = [measure.measured("voice-infer", OURS, each, 1, CPU, ROOT, repeats=1) for each in rows]
    assert [each["operations"] for each in found] == [2 * 6 * 4] * 2


def test_checkouts_are_told_by_their_networks(tmp_path):
    for network, file in (("waveglow", "glow.py"), ("tacotron2", "model.py")):
        (tmp_path / network).mkdir()
        with pytest.raises(benchmark.UserError, match=f"git clone https://github.com/NVIDIA/{network} "):
            peers.check_checkout(tmp_path, network)
        (tmp_path / network / file).touch()
        peers.check_checkout(tmp_path, network)
