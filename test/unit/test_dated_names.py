"""What already has the name of something new stays under a dated one, also when that happens twice in a second."""

import os
import time

from common.checkpoints import native
from common.log import keep_earlier


def test_of_checkpoints(tmp_path, monkeypatch):
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    monkeypatch.setattr(time, "strftime", lambda form: now)
    for i in range(4):
        state = {"model": {}, "config": {}, "iteration": i, "progress": {}}
        native.save(tmp_path / "waveglow_7", state)
    kept = sorted(tmp_path.glob("waveglow_7.*"))
    assert [native.load(path)["iteration"] for path in [*kept, tmp_path / "waveglow_7"]] == [0, 1, 2, 3]
    assert kept[0].name == f"waveglow_7.{now}"
    assert native.newest_first(tmp_path, "waveglow") == [tmp_path / "waveglow_7"]


def test_of_checkpoints_where_the_file_system_knows_no_links(tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", fail)
    test_of_checkpoints(tmp_path, monkeypatch)


def test_of_logs(tmp_path):
    output = tmp_path / "output"
    for run in range(3):
        for rank in (0, 1):
            folder = output / str(rank)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "log").write_text(f"{run}")
            (folder / "older").write_text("")
            for name, seconds in (("log", 1_767_323_045), ("older", 1_000_000_000)):
                os.utime(folder / name, (seconds, seconds))
            (folder / ".lock").write_text("stays")
            keep_earlier(folder, but=".lock")
            keep_earlier(folder, but=".lock")  # nothing to keep
            assert [path.name for path in folder.iterdir()] == [".lock"]
    date = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(1_767_323_045))
    for rank in (0, 1):
        kept = sorted(output.glob(f"{rank}_*"))
        assert [path.name for path in kept] == [f"{rank}_{date}", f"{rank}_{date}_", f"{rank}_{date}__"]
        assert [(folder / "log").read_text() for folder in kept] == ["0", "1", "2"]
