"""The drivers of all stages, run.sh and perf.sh: what is there is kept, what fails is said and ends alone."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from deploy_toys import engines, models_dir

from common.folder_lock import LOCK
from common.program import UserError
from tools.deploy import checks, run, stages
from tools.deploy.artifacts import ONNX, engine_folder, read_contents
from tools.deploy.benchmark import perf
from tools.deploy.engines import onnxruntime_engine, quantization
from tools.deploy.gen_model.settings import Settings
from tools.deploy.infer_python import measure

QUICK = ["--num_iters=1", "--warmup_iters=0", "--il=20", "--no-waveglow"]


@pytest.fixture
def folder(tmp_path):
    """A models_dir with graphs."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ONNX).symlink_to(models_dir() / ONNX)
    return tmp_path / "models"


@pytest.fixture
def start(monkeypatch, folder, tmp_path, caplog):
    caplog.set_level("INFO")

    def start(module, *options):
        given = [f"--models_dir={folder}", "-o", str(tmp_path / "output"), *QUICK, *options]
        monkeypatch.setattr(sys, "argv", ["program", *given])
        module.main()

    return start


def test_engines_are_built_once_for_all_that_they_are_for(start, folder, tmp_path, caplog):
    start(run, "--bs=2")
    built = folder / "onnxruntime_force_float16"
    times = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    start(run, "--bs=1,8")
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == times
    assert "kept the engines in" in caplog.text
    start(run, "--bs=1,9")
    assert read_contents(built, "onnxruntime", "").ranges["batch"] == [1, 4, 9]
    reports = sorted((tmp_path / "output").rglob("latency.json"), key=lambda path: path.stat().st_mtime_ns)
    runs = [[run["batch"] for run in json.loads(path.read_text())["runs"]] for path in reports]
    assert runs == [[2], [1, 8], [1, 9]]  # the earlier ones in folders with their dates


def test_the_report_in_a_folder_is_named_after_the_first_batch(start, tmp_path, monkeypatch):
    """Without batches it is one clip at a time; what is done is said on the terminal."""
    logs, spoken = tmp_path / "logs", []
    logs.mkdir()

    def measured(args, folder, contents, batch):
        spoken.append(batch)
        raise UserError("enough")

    monkeypatch.setattr(measure, "measure", measured)
    found, logs_opened = [], []
    monkeypatch.setattr(run.Results, "make_room", lambda self: found.append(self.text))
    monkeypatch.setattr(run, "open_log", lambda path, quiet: logs_opened.append((path, quiet)))
    for options in ([], ["--bs=3,1"]):
        with pytest.raises(UserError, match="enough"):
            start(run, f"--log_file={logs}", *options)
    assert spoken == [1, 3]
    assert found == [logs / f"force_float16_{batch}_20_log_perf" for batch in (1, 3)]
    assert logs_opened == [(None, False)] * 2


def test_engines_are_built_for_all_batches_that_are_wanted(monkeypatch, tmp_path):
    """1 to 8, or to the largest that is wanted; those that are there are kept if they are for all that are wanted."""
    assert stages.batches(tmp_path, "torch", [1]) == stages.batches(tmp_path, "torch", [8, 2]) == [1, 4, 8]
    assert stages.batches(tmp_path, "torch", [9, 2]) == [1, 4, 9]
    there = SimpleNamespace(ranges={"batch": [2, 3, 5]})
    monkeypatch.setattr(stages, "read_contents", lambda *_: there)
    for wanted in ([2], [5], [2, 5], [4]):
        assert stages.batches(tmp_path, "torch", wanted) == [2, 3, 5]
    for wanted in ([1], [6], [1, 5], [2, 6]):
        assert stages.batches(tmp_path, "torch", wanted) == [1, 4, 8]


def test_engines_are_ordered_with_all_that_was_said(monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "build", lambda order: order)
    args = SimpleNamespace(models_dir=tmp_path, engine="torch", bs=[9], json=Path("own.json"))
    folder, order = stages.make_engines(args, Settings(), "int8")
    assert folder == order.folder == engine_folder(tmp_path, "torch", "int8")
    assert (order.engine, order.quant_mode, order.models_dir, order.json) == ("torch", "int8", tmp_path, args.json)
    assert order.settings.ranges.batch == [1, 4, 9]


def test_texts_may_be_as_short_and_as_long_as_engines_are_built_for(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run", f"--models_dir={tmp_path}", f"--output={tmp_path}", "--engine=torch"])
    args = run.read_arguments()
    for length, is_taken in ((3, False), (4, True), (256, True), (257, False)):
        args.il, args.devices = length, []
        if is_taken:
            assert checks.begin(args, []).ranges.text[::2] == [4, 256]
        else:
            with pytest.raises(UserError, match=f"--il is {length}, and engines are built for 4 to 256"):
                checks.begin(args, [])


def test_engines_that_are_damaged_are_built_again(start, folder):
    start(run)
    built = folder / "onnxruntime_force_float16"
    path = read_contents(built, "onnxruntime", "").path(built, "postnet")
    path.write_bytes(path.read_bytes()[:-1])
    start(run)
    read_contents(built, "onnxruntime", "").path(built, "postnet")


@pytest.mark.parametrize("name", ["perf.md", "perf.json", "perf.png", "dev0_0.wav"])
def test_a_folder_in_the_place_of_a_table_is_said_before_the_work(start, folder, tmp_path, name):
    (tmp_path / "output" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"cannot write .*{name}: it is a folder"):
        start(perf)
    assert [path.name for path in folder.glob("[!.]*")] == [ONNX]


@pytest.mark.parametrize("module", [run, perf])
def test_both_folders_are_held_before_anything_is_made(start, folder, tmp_path, monkeypatch, module):
    """Or two of these programs would write into one of them."""
    began = []

    def make_graphs(args):
        began.extend((path / LOCK).is_file() for path in (folder, tmp_path / "output"))
        raise UserError("enough")

    monkeypatch.setattr(stages, "make_graphs", make_graphs)
    with pytest.raises(UserError, match="enough"):
        start(module)
    assert began == [True, True]


def test_device_and_sizes_are_named_before_the_work(start, caplog, tmp_path):
    start(run, "--bs=2", f"--log_file={tmp_path}")
    assert (tmp_path / "force_float16_2_20_log_perf").is_file()
    parts = ("device 0: ONNX Runtime", "sizes of batch 1 to 8, text 4 to 256", "postnet:")
    order = [caplog.text.index(part) for part in parts]
    assert order == sorted(order)


def test_a_mode_that_cannot_be_built_has_its_row_and_the_others_are_measured(start, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(quantization, "to_int8", refuse)
    (tmp_path / "output").mkdir()
    earlier = ["dev0_0.wav", "perf.md"]
    for name in earlier:
        (tmp_path / "output" / name).write_text("earlier")
    start(perf, "--bs=1")
    (dated,) = (path.parent for path in tmp_path.glob("output/*/perf.md"))  # a folder with its date
    assert {path.name: path.read_text() for path in dated.iterdir()} == dict.fromkeys(earlier, "earlier")
    table = (tmp_path / "output/perf.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert [row[2] for row in rows[2:]] == ["force_float32", "force_float16", "int8"]
    assert rows[-1][-1] == "the card knows no int8"
    assert rows[-1][4] == "-"
    assert float(rows[2][4].replace(",", "")) > 0
    saved = json.loads((tmp_path / "output/perf.json").read_text())
    assert saved["failed"] == {"int8": "the card knows no int8"}
    assert "int8 is left out: the card knows no int8" in caplog.text


def refuse(*_, **__):
    raise UserError("the card knows no int8")


def test_without_any_mode_there_is_no_table(start, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime_engine.OnnxRuntime, "build", refuse)
    with pytest.raises(UserError, match="no mode can be measured: the card knows no int8"):
        start(perf)
    assert not (tmp_path / "output/perf.md").exists()


def test_the_table_names_the_processor(start, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime_engine, "processor_name", lambda: "Famous 9000")
    start(perf, "--bs=1", "--quant_modes", "force_float32")
    cores = len(os.sched_getaffinity(0))
    assert f"on Famous 9000, {cores} thread" in (tmp_path / "output/perf.md").read_text()


def test_perf_writes_a_table_and_a_plot(tmp_path, monkeypatch):
    engines()
    options = ["--quant_modes", "force_float32", "--bs=1,4", "--il=20", "--num_iters=2", "--warmup_iters=0"]
    monkeypatch.setattr(sys, "argv", ["perf", *options, f"--models_dir={models_dir()}", "-o", str(tmp_path)])
    perf.main()
    table = [line.split(" | ") for line in (tmp_path / "perf.md").read_text().splitlines() if line.startswith("|")]
    assert [row[1:4] for row in table[2:]] == [["20", "force_float32", "1"], ["20", "force_float32", "4"]]
    assert all(float(row[4].replace(",", "")) > 0 and float(row[5].replace(",", "")) > 0 for row in table[2:])
    assert (tmp_path / "perf.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "perf.json").read_text())["runs"]) == 2
