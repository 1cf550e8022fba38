"""tools/speed/kernels.py: what of a job is profiled, and the table of its kernels."""

import gzip
import json
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from runs import CPU
from tools.speed import kernels
from tools.speed.jobs import JOBS, Job, batches_on
from tools.speed.kernels import PROFILED, Profiled, activities, profiled, report

CARD = SimpleNamespace(type="cuda", torch_device="cuda:0")


def entry(key, count, device_time=0, cpu_time=0, on_card=False, annotation=False):
    """As in ``profile.key_averages()``, with times in microseconds."""
    return SimpleNamespace(
        key=key, count=count, self_device_time_total=device_time, self_cpu_time_total=cpu_time,
        device_type=DeviceType.CUDA if on_card else DeviceType.CPU, is_user_annotation=annotation,
    )  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    """Jobs of one product each; what was asked of each."""
    asked = []

    def make(device, precision, batch):
        x = torch.ones(8, 8)
        return Job(lambda: asked.append((precision, batch)) or x @ x, 1)

    for name in JOBS:
        monkeypatch.setitem(JOBS, name, make)
    return asked


def test_every_model_trains_and_speaks():
    assert {each.job for each in PROFILED} == JOBS.keys() - {"voice-infer"}


def test_the_table_has_what_the_card_computes_and_the_sums(monkeypatch):
    monkeypatch.setattr(kernels, "card_name", lambda device: "a card")
    entries = [
        entry("gemm<a|b>", 4, 3000, on_card=True), entry("Memcpy HtoD (Pinned -> Device)", 2, 1000, on_card=True),
        entry("add", 10, 4000, on_card=True), entry("Adam", 1, 9999, on_card=True, annotation=True),
        entry("aten::mm", 4, 3000, 50), entry("cudaLaunchKernel", 11, 0, 70), entry("cuLaunchKernelEx", 1, 0, 7),
        entry("cudaGraphLaunch", 1, 0, 70), entry("cudaMemcpyAsync", 2, 0, 7), entry("cudaStreamSynchronize", 3, 0, 7),
    ]  # fmt: skip
    head, _, *table = report("job_half", CARD, 0.02, entries).splitlines()
    assert head == (
        f"job_half, a card, torch {torch.__version__}: 20.0 ms without the profiler, 8.0 ms computing;"
        " 14 kernels, 2 copies, 15 launches, 3 waits of the host."
    )
    assert table[2:] == [
        "| 4.000 | 50.0% | 10 | 400.0 | add |", "| 3.000 | 37.5% | 4 | 750.0 | gemm<a/b> |",
        "| 1.000 | 12.5% | 2 | 500.0 | Memcpy HtoD (Pinned -> Device) |",
    ]  # fmt: skip


def test_the_smallest_are_added_up():
    entries = [entry(f"kernel {i}", 2, cpu_time=100 - i) for i in range(43)]
    lines = report("job", CPU, 1.0, entries).splitlines()[4:]
    assert len(lines) == 41 and lines[-1] == "| 0.177 | 5.2% | 6 | | 3 others |"


def test_nothing_computed_is_a_table_too():
    assert report("job", CPU, 1.0, []).splitlines()[0].endswith("0.0 ms computing; 0 operators.")


def test_the_call_after_the_timed_one_is_profiled(tiny):
    wall, found = profiled(Profiled("waveglow-train", "half"), CPU)
    assert tiny == [("half", batches_on(CPU)["waveglow-train"][0])] * 5 and wall > 0
    assert [each.count for each in found.key_averages() if each.key == "aten::mm"] == [1]


def test_kernels_are_noted_with_or_without_operators():
    names = [[each.name for each in activities(CARD, operators)] for operators in (True, False)]
    assert names == [["CUDA", "CPU"], ["CUDA"]] and [each.name for each in activities(CPU, False)] == ["CPU"]


def test_each_job_leaves_a_table_and_a_trace(tiny, run_here, tmp_path):
    done = run_here(kernels.main, "out", "--device=cpu")
    assert done.returncode == 0, done.stderr
    names = {f"{each.job}_{each.precision}" for each in PROFILED}
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("md", "json.gz")}
    for name in names:
        assert "aten::mm" in (tmp_path / f"out/{name}.md").read_text()
        assert json.loads(gzip.decompress((tmp_path / f"out/{name}.json.gz").read_bytes()))["traceEvents"]


def test_a_job_that_fails_is_told_and_the_others_go_on(tiny, monkeypatch, run_here, tmp_path):
    def make(device, precision, batch):
        raise RuntimeError("no memory\nat all")

    monkeypatch.setitem(JOBS, "waveglow-train", make)
    done = run_here(kernels.main, "out", "--device=cpu")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "error: waveglow-train_half: no memory"
    assert len(list((tmp_path / "out").glob("*.md"))) == len(PROFILED) - 1
