"""Where wavs and reports go, and that those of an earlier run stay."""

import json
import os
import time
from pathlib import Path

import pytest
from iterations import iteration

from common.program import UserError
from tools.deploy.infer_python.latency import DeviceResult, Run
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
    ("log_file", "text", "beside"),
    [
        ("", None, "wavs/latency.json"),
        ("logs/a.txt", "logs/a.txt", "logs/a.txt.json"),
        ("folder", "folder/name_log_perf", "folder/name_log_perf.json"),
        ("pipe", "pipe", "wavs/latency.json"),  # beside which nobody looks for a file
    ],
)
def test_a_report_goes_to_its_file_or_into_its_folder(tmp_path, monkeypatch, log_file, text, beside):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo("pipe")
    results = Results(Path("wavs"), log_file, "name")
    assert (results.text and str(results.text), str(results.json)) == (text, beside)
    assert results.json.parent.is_dir()


def test_reports_of_several_batches_stand_one_below_the_other(tmp_path, capsys):
    """On the terminal as in a file, with an empty line between them and none behind; all of them in the JSON."""
    runs = [Run("torch", "int8", batch, 9, {}, {}, {0: DeviceResult("a", [iteration()])}) for batch in (1, 2)]
    expected = "\n".join(run.as_text() for run in runs)
    Results(tmp_path / "wavs", "", "name").write(runs)
    assert capsys.readouterr().out == expected
    Results(tmp_path / "wavs", str(tmp_path / "a.txt"), "name").write(runs)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "a.txt").read_text() == expected
    for path in (tmp_path / "wavs/latency.json", tmp_path / "a.txt.json"):
        assert [run["batch"] for run in json.loads(path.read_text())["runs"]] == [1, 2]


def test_a_folder_in_the_place_of_a_report_is_refused_before_anything_is_spoken(tmp_path):
    for taken in ("a.txt.json", "wavs/out_0001.wav"):
        (tmp_path / taken).mkdir(parents=True)
        with pytest.raises(UserError, match=f"cannot write .*{taken}: it is a folder, move it"):
            Results(tmp_path / "wavs", str(tmp_path / "a.txt"), "name")
        (tmp_path / taken).rmdir()


def test_an_earlier_report_is_set_aside_where_it_lies(tmp_path):
    """The wavs are in another folder, each with a date of its own; what has other names stays."""
    (tmp_path / "wavs").mkdir()
    ages = {"wavs/dev12_3.wav": 100, "wavs/out_0012.wav": 200, "a.txt": 300, "a.txt.json": 400}
    others = ["wavs/out_1.wav", "wavs/dev_1.wav", "wavs/a.txt", "b.txt", "wavs/latency.json"]
    for name in [*ages, *others]:
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1.6e9 - ages.get(name, 0),) * 2)
    Results(tmp_path / "wavs", str(tmp_path / "a.txt"), "name").make_room()
    date = lambda age: time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(1.6e9 - age))  # noqa: E731
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("[!.]*") if path.is_file()}
    assert there == {
        *others, f"wavs/{date(100)}/dev12_3.wav", f"wavs/{date(100)}/out_0012.wav", f"{date(300)}/a.txt",
        f"{date(300)}/a.txt.json",
    }  # fmt: skip


def test_where_there_is_nothing_to_set_aside_no_folder_is_made(tmp_path):
    set_aside([tmp_path / "a.wav"])
    assert list(tmp_path.glob("[!.]*")) == []
