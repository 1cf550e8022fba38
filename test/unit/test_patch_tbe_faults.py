"""The patcher where something is wrong: crashes, bad files, links, disks that fail, others who write meanwhile."""

import os

import pytest

from common.program import UserError
from tbe_files import (
    FIVE_2_FOUR,
    FOUR_2_FIVE,
    SHAPES,
    TRANS_DATA,
    TRANSPOSE,
    content,
    contents,
    state,
)
from tools.tbe import edits
from tools.tbe.lists import PLACES

pytest_plugins = ["tbe_files"]


def test_apply_after_a_crash(cann, patch):
    """Backups are written first; the program may have ended right behind that."""
    original = contents(cann)
    patch("--apply")
    for name in PLACES:
        (cann / name).write_bytes(original[name])
    assert f"{FOUR_2_FIVE}: nothing to restore" in patch("--restore")[1]
    assert patch("--apply")[0] == 0
    assert len(contents(cann)) == 6
    patch("--restore")
    assert contents(cann) == original


@pytest.mark.parametrize("mode", ["--check", "--apply"])
@pytest.mark.parametrize("name", PLACES)
def test_one_bad_file_stops_all(cann, patch, name, mode):
    (cann / name).write_bytes(content(name) + b"x = (\n")
    before = state(cann)
    with pytest.raises(UserError, match=rf"{name} is not Python"):
        patch(mode)
    assert state(cann) == before


@pytest.mark.parametrize("mode", ["--check", "--apply", "--restore"])
@pytest.mark.parametrize("link", [TRANSPOSE, FIVE_2_FOUR, "dynamic", "."])
def test_links_out_of_cann_are_refused(cann, patch, tmp_path, link, mode):
    outside = tmp_path / "outside"
    (cann / link).rename(outside)
    (cann / link).symlink_to(outside)
    before = state(cann), state(tmp_path)
    with pytest.raises(UserError, match=r"is a link out of .*outside"):
        patch(mode)
    assert (state(cann), state(tmp_path)) == before


def test_links_inside_of_cann_are_followed(cann, patch):
    (cann / FIVE_2_FOUR).rename(cann / "dynamic/real.py")
    (cann / FIVE_2_FOUR).symlink_to("dynamic/real.py")
    original = contents(cann)
    assert patch("--apply")[0] == 0
    assert (cann / FIVE_2_FOUR).is_symlink() and (cann / "dynamic/real.py").read_bytes() != original["dynamic/real.py"]
    patch("--restore")
    assert contents(cann) == original and (cann / FIVE_2_FOUR).is_symlink()


@pytest.mark.parametrize("loop", [FIVE_2_FOUR, "dynamic"])
def test_file_that_is_none_is_named(cann, patch, loop):
    (cann / loop).rename(cann / "other")
    (cann / loop).symlink_to(loop)
    with pytest.raises(UserError, match=f"cannot read or write .*{loop}"):
        patch("--apply")


@pytest.mark.parametrize("failing", PLACES)
@pytest.mark.parametrize(("mode", "backup"), [("--apply", False), ("--apply", True), ("--restore", False)])
def test_failure_half_way_puts_all_back(cann, patch, monkeypatch, failing, mode, backup):
    """Whether it is a file that cannot be written or its backup."""
    if mode == "--restore":
        patch("--apply")
    before = contents(cann)
    genuine = edits.write_like
    failed = []

    def write_like(model, path, data):
        if model == cann / failing and (path != model) == backup and not failed:
            failed.append(path)
            raise OSError(28, "No space left on device", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(edits, "write_like", write_like)
    with pytest.raises(UserError, match=rf"cannot read or write .*{failing}.*: No space left on device"):
        patch(mode)
    assert failed
    assert contents(cann) == before


def test_so_does_ctrl_c(cann, patch, monkeypatch):
    before, genuine = contents(cann), edits.write_like

    def write_like(model, path, data):
        genuine(model, path, data)
        if path == cann / FIVE_2_FOUR:
            monkeypatch.setattr(edits, "write_like", genuine)
            raise KeyboardInterrupt

    monkeypatch.setattr(edits, "write_like", write_like)
    with pytest.raises(KeyboardInterrupt):
        patch("--apply")
    assert contents(cann) == before


def test_putting_back_spares_what_somebody_else_wrote(cann, patch, monkeypatch):
    genuine = edits.write_like

    def write_like(model, path, data):
        if path == cann / FIVE_2_FOUR:
            (cann / TRANSPOSE).write_bytes(b"# mine\n")
            raise OSError(28, "No space left on device", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(edits, "write_like", write_like)
    with pytest.raises(UserError, match="No space left"):
        patch("--apply")
    left = contents(cann)
    assert left.pop(TRANSPOSE) == b"# mine\n"
    assert [left.pop(name) for name in TRANS_DATA] == [content(name) for name in TRANS_DATA]
    assert list(left.values()) == [content(TRANSPOSE)]  # the original is not lost


def test_failure_to_put_back_is_said(cann, patch, monkeypatch):
    genuine = edits.write_like

    def write_like(model, path, data):
        if (cann / FOUR_2_FIVE).read_bytes() != content(FOUR_2_FIVE):
            raise OSError(5, "Input/output error", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(edits, "write_like", write_like)
    with pytest.raises(UserError, match=f"putting back {cann / TRANSPOSE}, {cann / FOUR_2_FIVE}"):
        patch("--apply")
    monkeypatch.setattr(edits, "write_like", genuine)
    patch("--restore")
    assert contents(cann) == {name: content(name) for name in PLACES}


@pytest.mark.parametrize(
    ("changed", "hook"),
    [
        # before the first is written, also a file in which there is nothing to add; before the last is
        (TRANSPOSE, "require_writable"), (FOUR_2_FIVE, "require_writable"), (FIVE_2_FOUR, "require_writable"),
        (FIVE_2_FOUR, "write_like"),
    ],
)  # fmt: skip
def test_change_between_reading_and_writing(cann, patch, monkeypatch, changed, hook):
    (cann / FOUR_2_FIVE).write_bytes(content(FOUR_2_FIVE, str(SHAPES[FOUR_2_FIVE])))
    before = contents(cann)
    genuine = getattr(edits, hook)

    def meanwhile(*args):
        (cann / changed).write_bytes(b"# mine\n")
        genuine(*args)

    monkeypatch.setattr(edits, hook, meanwhile)
    with pytest.raises(UserError, match=f"{changed} was changed by somebody else"):
        patch("--apply")
    assert contents(cann) == before | {changed: b"# mine\n"}


def test_cann_of_somebody_else(cann, patch, monkeypatch):
    before = state(cann)
    with monkeypatch.context() as as_user:
        as_user.setattr(os, "geteuid", lambda: (cann / FIVE_2_FOUR).stat().st_uid + 1)
        with pytest.raises(UserError, match=r"cannot write to .*: run this as root"):
            patch("--apply")
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(UserError, match=r"cannot write to .*: run this as root"):
            patch("--apply")
        assert patch("--check")[0] == 3
    assert state(cann) == before
