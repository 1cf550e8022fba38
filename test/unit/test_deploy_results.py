"""Where wavs and reports go, and that those of an earlier run stay."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from deploy_toys import report_of, to_infer

from tools.deploy.infer_python import infer
from tools.deploy.infer_python.results import Results, set_aside


def test_results_of_an_earlier_run_stay_under_their_date(tmp_path):
    files = [tmp_path / name for name in ("dev0_0.wav", "latency.json", "out_0001.wav", "mine.wav")]
    for run in range(3):
        for file, age in zip(files[:3], (50, 0, 100)):  # the date is that of the newest
            file.write_text(str(run))
            os.utime(file, (1.6e9 - age, 1.6e9 - age))
        files[3].write_text("the user's own")
        Results(tmp_path, "", "name").make_room()
    date = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(1.6e9))
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [date, f"{date}_", f"{date}__", "mine.wav"]
    assert [(tmp_path / f"{date}{end}/dev0_0.wav").read_text() for end in ("", "_", "__")] == ["0", "1", "2"]


def test_a_link_that_the_user_has_made_stays_for_what_is_new(tmp_path):
    (tmp_path / "latency.json").symlink_to(tmp_path / "disk")
    (tmp_path / "disk").write_text("earlier")
    Results(tmp_path, "", "name").make_room()
    assert (tmp_path / "latency.json").is_symlink()
    assert [path.read_text() for path in tmp_path.glob("*/latency.json")] == ["earlier"]


@pytest.mark.parametrize(
    ("log_file", "text", "numbers"),
    [
        ("", None, "wavs/latency.json"),
        ("logs/a.txt", "logs/a.txt", "logs/a.txt.json"),
        ("folder", "folder/name_log_perf", "folder/name_log_perf.json"),
        ("pipe", "pipe", "wavs/latency.json"),  # beside which nobody looks for a file
    ],
)
def test_where_a_report_goes(tmp_path, monkeypatch, log_file, text, numbers):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo("pipe")
    results = Results(Path("wavs"), log_file, "name")
    assert (results.text and str(results.text), str(results.json)) == (text, numbers)
    assert results.json.parent.is_dir()


def test_a_report_is_in_one_place(tmp_path, capsys):
    """The log file, or without one the terminal; the numbers are in the JSON either way."""
    runs = [SimpleNamespace(as_text=lambda: "report\n", as_json=lambda: {"batch": 1})] * 2
    for log_file, shown in (("", "report\n\nreport\n"), (str(tmp_path / "log"), "")):
        results = Results(tmp_path, log_file, "name")
        results.write(runs)
        assert capsys.readouterr().out == shown
        assert json.loads(results.json.read_text()) == {"runs": [{"batch": 1}] * 2}
    assert (tmp_path / "log").read_text() == "report\n\nreport\n"


def test_nothing_to_set_aside(tmp_path):
    set_aside([tmp_path / "a.wav"])
    assert list(tmp_path.glob("[!.]*")) == []


def test_a_folder_as_log_file_gets_the_samples_name(run_here, tmp_path):
    options = ["--log_file", ".", "--num_iters=1", "--warmup_iters=0", "--no-waveglow", "-o", "wavs"]
    for _ in range(2):
        done = run_here(infer.main, *to_infer("force_float32", "2", "20", *options))
        assert done.returncode == 0, done.stderr
    assert list(report_of((tmp_path / "force_float32_2_20_log_perf").read_text())) == ["dev[0]"]
    assert len(list(tmp_path.glob("*/force_float32_2_20_log_perf"))) == 1  # of the first run


def test_an_empty_log_file_is_the_terminal(run_here):
    options = ["--log_file", "", "--num_iters=1", "--warmup_iters=0", "--no-waveglow", "-o", "wavs"]
    done = run_here(infer.main, *to_infer("force_float32", "1", "20", *options))
    assert list(report_of(done.stdout)) == ["dev[0]"]
