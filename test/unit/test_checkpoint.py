"""Checkpoint files: whole or absent, read without running anything, refused with a reason."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from common.checkpoints import native
from common.files import written_whole
from common.program import UserError
from conftest import ROOT


def state(size=10):
    return {"model": {"a": torch.arange(float(size))}, "config": {}, "iteration": 3, "progress": {}}


def test_what_is_saved_is_loaded(tmp_path):
    path = native.checkpoint_path(tmp_path / "new folder", "waveglow", 12)
    assert path.name == "waveglow_12"
    native.save(path, state())
    assert torch.equal(native.load(path)["model"]["a"], state()["model"]["a"])
    without = native.load(path, with_tensors=False)
    assert without["iteration"] == 3 and without["model"]["a"].shape == state()["model"]["a"].shape
    assert [p.name for p in path.parent.iterdir()] == ["waveglow_12"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="boom"), written_whole(path) as file:
        file.write(b"half")
        raise RuntimeError("boom")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """And then its name is there, too: the power may go at any moment."""
    steps, fsync, replace = [], os.fsync, os.replace

    def synced(number):
        steps.append("folder" if os.path.isdir(number) else f"{os.fstat(number).st_size} bytes")
        fsync(number)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: steps.append("name") or replace(*paths))
    with written_whole(tmp_path / "a") as file:
        file.write(b"whole")
    assert steps == ["5 bytes", "name", "folder"]


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path):
    """A limit on file size stands in for the full disk: writing fails in the same places."""
    native.save(tmp_path / "waveglow_1", state())
    code = (
        "import resource, sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from common.checkpoints import native\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "state = {'model': {'a': torch.zeros(100_000)}, 'config': {}}\n"
        "for name in ('waveglow_1', 'waveglow_2'):\n"
        "    try: native.save(Path(sys.argv[2], name), state)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT, tmp_path], capture_output=True, text=True, timeout=240)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith(f"UserError cannot save {tmp_path}")
        assert "File too large; the earlier checkpoints are untouched" in line
    assert os.listdir(tmp_path) == ["waveglow_1"]
    assert native.load(tmp_path / "waveglow_1")["iteration"] == 3


def test_newest_first_goes_by_number(tmp_path):
    names = ["waveglow_9", "waveglow_100", "waveglow_20", "waveglow_20.2026-01-01", "waveglow_x", "tacotron2_500"]
    for name in names:
        (tmp_path / name).touch()
    found = [path.name for path in native.newest_first(tmp_path, "waveglow")]
    assert found == ["waveglow_100", "waveglow_20", "waveglow_9"]
    assert native.newest_first(tmp_path / "missing", "waveglow") == []


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


def test_files_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    native.save(tmp_path / "good", state(100_000))
    whole = (tmp_path / "good").read_bytes()
    cases = {
        "truncated": (whole[: len(whole) // 2], "truncated"),
        "cut in the header": (whole[:10], "truncated"),
        "empty": (b"", "truncated"),
        "text": (b"hello", "truncated or no checkpoint"),
        "hostile": (pickle.dumps(Hostile()), "refused: it asks for"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        for with_tensors in (False, True):
            with pytest.raises(UserError, match=message):
                native.load(tmp_path / name, with_tensors)
    torch.save({"model": Hostile(), "config": {}}, tmp_path / "hostile zip")
    with pytest.raises(UserError, match="refused: it asks for"):
        native.load(tmp_path / "hostile zip")
    assert not (tmp_path / "hostile").is_dir()
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(UserError, match="lacks some of config, iteration, model"):
        native.load(tmp_path / "list")
    with pytest.raises(UserError, match="no checkpoint at"):
        native.load(tmp_path / "missing")
    with pytest.raises(UserError, match="is a folder"):
        native.load(tmp_path)
