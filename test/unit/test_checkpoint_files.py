"""Checkpoint files: written whole, found by their names, read without running anything, refused with a reason."""

import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from small_checkpoints import state

from common.checkpoints import native, reading
from common.checkpoints.budget import RefusedError
from common.checkpoints.reading import read_contents
from common.program import UserError
from conftest import ROOT


def test_what_is_saved_is_loaded(tmp_path):
    path = native.checkpoint_path(tmp_path / "new folder", "waveglow", 12)
    assert path.name == "waveglow_12"
    native.save(path, state(3))
    assert torch.equal(native.load(path)["model"]["a"], state()["model"]["a"])
    without = native.load(path, with_tensors=False)
    assert without["iteration"] == 3 and without["model"]["a"].shape == state()["model"]["a"].shape
    assert [p.name for p in path.parent.iterdir()] == ["waveglow_12"]


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path):
    """A limit on file size stands in for the full disk: writing fails in the same places."""
    native.save(tmp_path / "waveglow_1", state(3))
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


def test_a_name_that_is_a_link_stays_one_and_what_it_leads_to_is_kept_and_written(tmp_path, monkeypatch, caplog):
    """Where the file is, there its earlier content has a dated name."""
    caplog.set_level("INFO")
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    monkeypatch.setattr(time, "strftime", lambda form: now)
    disk, here = tmp_path / "disk", tmp_path / "here"
    disk.mkdir()
    here.mkdir()
    native.save(disk / "data", state(1))
    assert not caplog.messages
    os.symlink(disk / "data", here / "waveglow_3")
    native.save(here / "waveglow_3", state(2))
    assert (here / "waveglow_3").is_symlink() and os.listdir(here) == ["waveglow_3"]
    assert sorted(os.listdir(disk)) == ["data", f"data.{now}"]
    assert [native.load(disk / name)["iteration"] for name in ("data", f"data.{now}")] == [2, 1]
    assert caplog.messages == [f"{disk / 'data'} was left by another run and is now data.{now}"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("a tensor is odd"), "a tensor is odd"),
    ],
)
def test_why_a_checkpoint_is_not_saved_is_said_and_nothing_is_left(tmp_path, monkeypatch, error, said):
    def fail(*args):
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=rf"cannot save {tmp_path}/a: {said}.*; the earlier checkpoints are untouched"):
        native.save(tmp_path / "a", state())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["model", "config", "iteration", "progress"])
def test_a_checkpoint_has_four_entries_at_least(tmp_path, missing):
    torch.save({name: value for name, value in state().items() if name != missing}, tmp_path / "a")
    for with_tensors in (True, False):
        with pytest.raises(UserError, match="a is no checkpoint of this repository: it lacks some of config, iterat"):
            native.load(tmp_path / "a", with_tensors)
        torch.save(list(state()), tmp_path / "list")
        with pytest.raises(UserError, match="list is no checkpoint of this repository: it lacks some of config, iter"):
            native.load(tmp_path / "list", with_tensors)
    native.save(tmp_path / "b", state() | {"more": 1})
    assert native.load(tmp_path / "b").keys() == {"model", "config", "iteration", "progress", "more"}
    assert native.load(tmp_path / "b", with_tensors=False)["model"]["a"].is_meta
    assert not native.load(tmp_path / "b")["model"]["a"].is_meta


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


def test_what_is_no_whole_checkpoint_or_would_run_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    native.save(tmp_path / "good", state(size=100_000))
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
    with pytest.raises(UserError, match="no checkpoint at"):
        native.load(tmp_path / "missing")
    with pytest.raises(UserError, match="is a folder"):
        native.load(tmp_path)


def test_checkpoints_are_found_by_their_whole_names_the_highest_number_first(tmp_path):
    for name in (
        "waveglow_2",
        "waveglow_010",
        "waveglow_9",
        "waveglow_3.part",
        "old_waveglow_4",
        "waveglow_",
        "waveglow_-5",
        "waveglow_x",
        "waveglow_20.2026-01-01",
        "waveglow_100",
        "tacotron2_500",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in native.newest_first(tmp_path, "waveglow")] == [
        "waveglow_100",
        "waveglow_010",
        "waveglow_9",
        "waveglow_2",
    ]
    assert native.checkpoint_path(str(tmp_path), "tacotron2", 70) == tmp_path / "tacotron2_70"
    assert native.newest_first(tmp_path / "missing", "waveglow") == []


# ---- forms of files ----


def written(path, metadata):
    safetensors.torch.save_file({"x.y": torch.ones(2), "z": torch.zeros(1).half()}, path, metadata)
    return path


def test_safetensors_hold_weights_and_in_json_configuration_and_steps(tmp_path):
    metadata = {"format": "pt", "config": json.dumps({"a": [1]}), "iteration": "7", "progress": "5"}
    found = read_contents(written(tmp_path / "a", metadata))
    assert found.keys() == {"model", "config", "iteration"}
    assert (found["config"], found["iteration"]) == ({"a": [1]}, 7)
    assert found["model"].keys() == {"x.y", "z"} and found["model"]["z"].dtype == torch.float16
    assert read_contents(written(tmp_path / "b", None)).keys() == {"model"}
    assert read_contents(written(tmp_path / "b", {"iteration": "7"})).keys() == {"model", "iteration"}
    with pytest.raises(UserError, match=r"c is truncated or no checkpoint$"):
        read_contents(written(tmp_path / "c", {"config": "{"}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file"), "no checkpoint at {path}"),
        (
            IsADirectoryError(21, "Is a directory"),
            "{path} is a folder: name a checkpoint in it, such as {path}/waveglow_1000",
        ),
        (PermissionError(13, "Permission denied"), "cannot read {path}: Permission denied"),
        (OSError(5, "Input/output error"), "cannot read {path}: Input/output error"),
        (UserError("a pipe is no file"), "a pipe is no file"),
        (RefusedError("it asks for 'os.system'"), "{path} is refused: it asks for 'os.system'; nothing in it was run"),
        (ValueError("Bad CRC-32 for file 'a'"), "{path} is damaged: Bad CRC-32 for file 'a'"),
        (KeyError("a"), "{path} is truncated or no checkpoint"),
        (EOFError(), "{path} is truncated or no checkpoint"),
        (MemoryError(), "{path} is truncated or no checkpoint"),
        (RecursionError(), "{path} is truncated or no checkpoint"),
    ],
)
def test_why_a_file_is_not_read_is_said_in_a_line(tmp_path, monkeypatch, error, said):
    def fail(*args):
        raise error

    path = tmp_path / "a"
    path.write_bytes(b"anything")
    monkeypatch.setattr(reading.restricted_pickle, "load", fail)
    with pytest.raises(UserError) as raised:
        read_contents(path)
    assert str(raised.value) == said.format(path=path)


@pytest.mark.parametrize("with_tensors", [True, False])
def test_tensors_are_read_or_not_as_asked(tmp_path, with_tensors):
    torch.save({"a": torch.ones(2)}, tmp_path / "a")
    found = read_contents(tmp_path / "a", with_tensors)["a"]
    assert found.is_meta != with_tensors and found.shape == (2,)
    assert not read_contents(tmp_path / "a")["a"].is_meta
