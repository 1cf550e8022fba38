"""tools/benchmark.py: its options, which processes it starts with what, what it writes while it measures."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.program import UserError
from runs import CPU
from tools import benchmark
from tools.speed import table as table_module
from tools.speed.jobs import JOBS
from tools.speed.measure import NVIDIA, ONNX_RUNTIME, OURS, PEAK, PYTORCH
from tools.speed.table import Measurement, of_peak, table


def read(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["benchmark", *options])
    return benchmark.read_arguments()


def test_without_options_all_jobs_are_measured_three_times_in_two_precisions(monkeypatch):
    args = read(monkeypatch)
    assert (args.jobs, args.device, args.precision, args.peer_path) == (list(JOBS), "auto", ["float32", "half"], None)
    assert (args.one_process, args.limit, args.repeats, args.output) == (False, 0, 3, Path("benchmark"))
    assert read(monkeypatch, "voice-infer").jobs == ["voice-infer"]
    assert read(monkeypatch, "--repeats=1", "--limit=0").repeats == 1


@pytest.mark.parametrize(
    "options",
    [["--repeats=0"], ["--limit=-0.1"], ["--limit=-1"], ["--limit=nan"], ["waveglow-sing"], ["--precision", "fp8"]],
)
def test_options_out_of_range_end_with_code_2(monkeypatch, capsys, options):
    with pytest.raises(SystemExit) as end:
        read(monkeypatch, *options)
    assert end.value.code == 2
    assert options[-1].partition("=")[0] in capsys.readouterr().err


def test_checkouts_are_looked_for_only_of_what_is_measured(monkeypatch):
    asked = []
    monkeypatch.setattr(benchmark, "check_checkout", lambda peers, network: asked.append((peers.name, network)))
    for job, networks in (("voice-infer", []), ("waveglow-train", ["waveglow"]), ("all", ["tacotron2", "waveglow"])):
        asked.clear()
        read(monkeypatch, job, "--peer_path=peers")
        assert sorted(asked) == [("peers", network) for network in networks]
    asked.clear()
    read(monkeypatch)
    assert not asked


def test_a_turn_is_measured_in_a_process_of_its_own_or_here(monkeypatch):
    started, made = [], []
    found = {"units": 4, "seconds": [1.0], "peak_memory": 7, "operations": 6}
    monkeypatch.setattr(
        benchmark, "start", lambda module, asked: started.append((module, json.loads(asked))) or json.dumps(found)
    )
    monkeypatch.setattr(benchmark, "measured", lambda **asked: made.append(asked) or found)
    each = Measurement("waveglow-train", OURS, "half", 2)
    own = {"job": "waveglow-train", "implementation": OURS, "precision": "half", "batch": 2, "repeats": 5}
    for one_process in (False, True):
        benchmark.measure(each, CPU, Path("a folder"), SimpleNamespace(repeats=5, one_process=one_process))
    assert started == [("tools.speed.measure", own | {"device": "cpu", "folder": "a folder"})]
    assert made == [own | {"device": CPU, "folder": Path("a folder")}]
    assert (each.units, each.seconds, each.peak_memory, each.operations) == (4, [1.0, 1.0], 7, 6)


@pytest.mark.parametrize(
    ("precisions", "modes"),
    [([], []), (["int8"], ["int8"]), (["float32", "int8", "float32"], ["force_float32", "int8"])],
)
def test_graphs_are_exported_once_and_built_for_each_mode(monkeypatch, caplog, precisions, modes):
    """Of random weights at full size, and not of the voice that comes with the repository, which is smaller."""
    started = []
    monkeypatch.setattr(benchmark, "start", lambda *command: started.append(command))
    measurements = [Measurement("waveglow-infer", OURS, "half", 1)]
    measurements += [Measurement("waveglow-infer", ONNX_RUNTIME, each, 1) for each in precisions]
    with benchmark.onnx_models(measurements) as models:
        folder = str(Path(models).parent)
        assert Path(folder).is_dir()
    assert not Path(folder).exists() and Path(models).name == "random"
    export = [("tools.deploy.export_model.export", "--random", "--models_dir", folder)] if modes else []
    builds = [
        ("tools.deploy.gen_model.build", "--models_dir", models, "--quant_mode", mode, "--no-compare") for mode in modes
    ]
    assert [*started[:1], *sorted(started[1:])] == [*export, *sorted(builds)]


@pytest.mark.parametrize(
    ("stderr", "said"), [("a\nerror: it is odd\n", "it is odd"), ("Odd: x\n", "Odd: x"), ("", "exit code 3")]
)
def test_why_a_process_failed_is_its_last_line(monkeypatch, stderr, said):
    asked = []

    def run(command, **how):
        asked.append((command, how))
        return SimpleNamespace(returncode=3, stderr=stderr, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match=f"^a.module x: {said}$"):
        benchmark.start("a.module", "x")
    ((command, how),) = asked
    assert command == [sys.executable, "-m", "a.module", "x"]
    assert (how["cwd"], how["timeout"]) == (benchmark.ROOT, 3600)


def test_what_a_process_prints_is_given_back(monkeypatch):
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stdout="said\n", stderr="odd")
    )
    assert benchmark.start("a.module") == "said\n"


@pytest.mark.parametrize(("card", "where"), [("Famous 9000", "Famous 9000"), ("", "CPU X, 7 threads")])
def test_the_head_says_where_it_was_measured(monkeypatch, card, where):
    monkeypatch.setattr(benchmark, "card_name", lambda device: card)
    monkeypatch.setattr(benchmark, "processor_name", lambda: "CPU X")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert benchmark.machine(CPU) == f"{date.today()}, {where}, torch {torch.__version__}; medians of 2 turns."


MEASURED = Measurement("voice-infer", OURS, "float32", 1, 10, [2.0], 10**9)


def test_all_three_files_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "machine", lambda device: "here")
    benchmark.write(tmp_path, CPU, [MEASURED])
    assert (tmp_path / "benchmark.md").read_text() == f"here\n\n{table([MEASURED])}"
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "benchmark.json").read_text()) == {
        "machine": "here",
        "measurements": [vars(MEASURED)],
    }


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The program, whose clock goes on by 10 s with each turn; (what is measured in which folder, what is written)."""

    def main(*options):
        turns, written, clock = [], [], iter(range(0, 10000, 10))

        def measure(each, device, folder, args):
            turns.append((each.job, each.implementation, each.precision, str(folder)))
            each.units, each.seconds = 1, [*each.seconds, 1.0]

        monkeypatch.setattr(benchmark, "measure", measure)
        monkeypatch.setattr(
            benchmark,
            "write",
            lambda out, device, some: written.append(len(some)) or (out / "benchmark.md").write_text("table\n"),
        )
        monkeypatch.setattr(benchmark, "start", lambda *_: "")
        monkeypatch.setattr(benchmark, "check_checkout", lambda *_: None)
        monkeypatch.setattr(benchmark, "why_no_int8", lambda device: "")
        monkeypatch.setattr(benchmark, "open_log", lambda *_, **__: None)
        monkeypatch.setattr(benchmark, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        monkeypatch.setattr(sys, "argv", ["benchmark", "--device=cpu", "-o", str(tmp_path), *options])
        benchmark.main()
        return turns, written

    return main


def test_everything_runs_in_turns_and_is_written_each_time(run, capsys, caplog, tmp_path):
    caplog.set_level("INFO")
    turns, written = run("waveglow-infer", "--precision", "float32", "int8", "--peer_path=peers")
    first = [(job, by, precision) for job, by, precision, _ in turns[: len(turns) // 2]]
    assert first == [
        (PEAK, PYTORCH, "float32"), ("waveglow-infer", NVIDIA, "float32"), ("waveglow-infer", ONNX_RUNTIME, "float32"),
        ("waveglow-infer", ONNX_RUNTIME, "int8"), ("waveglow-infer", OURS, "float32"), ("waveglow-infer", OURS, "int8"),
    ]  # fmt: skip
    assert turns[len(first) :] == turns[: len(first)]
    assert written == [1, 2, 3, 4, 5, 6, *[6] * 6]
    for _, by, _, folder in turns:
        assert folder.endswith("/random") if by == ONNX_RUNTIME else folder == "peers"
    assert capsys.readouterr().out == "table\n"
    assert caplog.messages[-1] == f"wrote benchmark.md, .png and .json to {tmp_path}"


@pytest.mark.parametrize(("limit", "turns"), [(0, 4), (25, 2), (30, 3), (1, 0)])
def test_who_is_out_of_time_measures_no_further(run, caplog, limit, turns, tmp_path):
    (tmp_path / "benchmark.md").write_text("of a run before\n")
    found, _ = run("voice-infer", "--precision", "half", f"--limit={limit}")
    assert len(found) == turns
    assert ("out of time: some of this is measured once or not at all" in caplog.messages) == (turns < 4)
    assert all(folder == "." for *_, folder in found)


# ---- the table ----


def ours(precision, job="waveglow-train", batch=2, operations=0, units=100, seconds=1.0):
    return Measurement(job, OURS, precision, batch, units, [seconds], 10**9, operations)


def test_the_share_of_the_peak_is_of_the_peak_in_that_precision():
    """What a job needs is the most that was counted of it; a precision is compared with its own peak."""
    peaks = [Measurement(PEAK, PYTORCH, each, 0, size, [1.0]) for each, size in (("float32", 1000), ("half", 4000))]
    one, two = ours("float32", operations=500), ours("half, recomputed", seconds=0.5)
    everything = [*peaks, one, two]
    assert of_peak(one, everything) == "50%"
    assert of_peak(two, everything) == "25%"
    assert of_peak(one, [one]) == "-"
    assert of_peak(ours("float32", job="voice-infer"), [*peaks, ours("float32", job="voice-infer")]) == "-"
    assert of_peak(peaks[0], everything) == "-"


def test_batches_of_another_size_are_compared_with_the_peer_of_the_job():
    peer = Measurement("tacotron2-infer", NVIDIA, "float32", 1, 200, [4.0], 2 * 10**9)
    lines = table([peer, ours("half", "tacotron2-infer", 8, units=1600, seconds=2.0)]).splitlines()
    assert (
        lines[3]
        == "| tacotron2-infer | 8 | this repository | half | 800 frames | 800-800 | 16.00 | - | 1.00 GB (0.50) |"
    )
    half = Measurement("tacotron2-infer", NVIDIA, "half", 1, 200, [4.0], 2 * 10**9)
    assert "| - | - |" in table([half]).splitlines()[2]  # which is no peer
    assert table([ours("half", "voice-infer", 1, units=22050)]).splitlines()[2].count("22,050 samples") == 1


def test_panels_of_the_plot_are_for_each_job_and_batch():
    figure = table_module.plot([ours("half", batch=batch) for batch in (1, 4)])
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == [f"waveglow-train, batch {batch}: samples per second" for batch in (1, 4)]
    peer = Measurement("waveglow-train", NVIDIA, "half", 1, 100, [1.0])
    colours = [bar.get_facecolor() for bar in table_module.plot([peer, ours("half", batch=1)]).axes[0].patches]
    assert colours[0] != colours[1]
