"""The patcher's edits one by one: the names of originals, what is planned for a file, which exit code it all has."""

import os

import pytest

from common.program import UserError
from tbe_files import FIVE_2_FOUR, FOUR_2_FIVE, SHAPES, TRANSPOSE, content
from tools import patch_tbe
from tools.tbe import edits
from tools.tbe.edits import (
    Edit,
    addition,
    backup_of,
    digest,
    is_missed,
    original_of,
    read_original,
    renamed,
    restoration,
)

pytest_plugins = ["tbe_files"]


def edit(outcome="", before=b"a", after=b"a", added=0, is_loss=False):
    return Edit("f.py", outcome, None, before, after, added, is_loss=is_loss)


CODES = [
    ("check", True, [edit(added=1, after=b"b")], 3),
    ("check", True, [edit(added=1, after=b"b"), edit(is_loss=True)], 3),
    ("check", False, [edit(), edit()], 0),
    ("check", False, [edit(), edit(is_loss=True)], 5),
    ("apply", False, [edit(added=1, after=b"b"), edit()], 0),
    ("apply", False, [edit(added=1, after=b"b"), edit(is_loss=True)], 5),
    ("apply", False, [edit(), edit()], 4),
    ("restore", False, [edit(), edit(after=b"b")], 0),
    ("restore", False, [edit()], 4),
]


@pytest.mark.parametrize(("mode", "lacking", "planned", "code"), CODES)
def test_exit_codes(mode, lacking, planned, code):
    assert patch_tbe.exit_code(mode, lacking, planned) == code


def test_originals_are_named_by_what_was_made_of_them_and_what_they_are(tmp_path):
    path = tmp_path / "a.py"
    made, original = digest(b"made"), digest(b"original")
    assert len(made) == 16 and made != original
    backup = backup_of(path, b"made", b"original")
    assert backup == tmp_path / f"a.py.before_patch_tbe.{made}.{original}"
    assert renamed(backup, b"other") == tmp_path / f"a.py.before_patch_tbe.{digest(b'other')}.{original}"
    old = tmp_path / f"a.py.before_patch_tbe.{made}"  # as earlier versions named them
    assert renamed(old, b"other") == tmp_path / f"a.py.before_patch_tbe.{digest(b'other')}"
    assert original_of(path, b"made") is None
    backup.write_bytes(b"original")
    assert original_of(path, b"made") == backup
    assert original_of(path, b"other") is original_of(tmp_path / "b.py", b"made") is None
    assert read_original(backup) == b"original"
    backup.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"is damaged \(its checksum differs\): nothing is restored"):
        read_original(backup)
    old.write_bytes(b"whatever")
    assert read_original(old) == b"whatever"
    assert read_original(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("name", "there", "missed"),
    [
        (TRANSPOSE, [], False), (TRANSPOSE, [TRANSPOSE], False), (TRANSPOSE, [FOUR_2_FIVE], True),
        (TRANSPOSE, [FIVE_2_FOUR], True), (FOUR_2_FIVE, [FIVE_2_FOUR, TRANSPOSE], False),
        (FOUR_2_FIVE, [FOUR_2_FIVE], True), (FIVE_2_FOUR, [FIVE_2_FOUR], True),
    ],
)  # fmt: skip
def test_a_list_is_missed_where_cann_is_old(tmp_path, name, there, missed):
    (tmp_path / "dynamic").mkdir()
    for each in there:
        (tmp_path / each).touch()
    assert is_missed(tmp_path, name) == missed


def test_what_is_planned_for_a_file(cann):
    path, before = cann / FOUR_2_FIVE, content(FOUR_2_FIVE)
    planned = addition(cann, FOUR_2_FIVE, SHAPES[FOUR_2_FIVE])
    assert (planned.name, planned.outcome, planned.path, planned.before) == (
        FOUR_2_FIVE,
        "patched (13 added)",
        path,
        before,
    )
    assert planned.after != before and (planned.added, planned.original, planned.is_loss) == (13, None, False)
    assert planned.contents == (before, planned.after)
    kept = backup_of(path, planned.after, b"x")  # of an --apply whose file was put back by hand
    kept.write_bytes(b"x")
    assert addition(cann, FOUR_2_FIVE, SHAPES[FOUR_2_FIVE]).original == kept
    mine = backup_of(path, before, b"y")  # of an --apply with other shapes
    mine.write_bytes(b"y")
    assert addition(cann, FOUR_2_FIVE, SHAPES[FOUR_2_FIVE]).original == mine
    path.write_bytes(planned.after)
    there = addition(cann, FOUR_2_FIVE, SHAPES[FOUR_2_FIVE])
    assert (there.outcome, there.after, there.added) == ("already there", planned.after, 0)
    path.unlink()
    gone = addition(cann, FOUR_2_FIVE, SHAPES[FOUR_2_FIVE])
    assert gone.outcome == "not in this CANN, no loss: TransData does without this file since September 2021"
    assert (gone.before, gone.after, gone.is_loss) == (None, None, False)


def test_what_is_planned_to_be_put_back(cann):
    path = cann / FOUR_2_FIVE
    assert restoration(cann, FOUR_2_FIVE).outcome == "nothing to restore"
    backup = backup_of(path, path.read_bytes(), b"original")
    backup.write_bytes(b"original")
    planned = restoration(cann, FOUR_2_FIVE)
    assert (planned.outcome, planned.after, planned.original) == ("restored", b"original", backup)
    path.write_bytes(b"mine")
    with pytest.raises(
        UserError, match=r"four_2_five\.py was changed after --apply and is left alone; its original is"
    ):
        restoration(cann, FOUR_2_FIVE)
    path.write_bytes(b"original")  # put back already, by hand
    assert restoration(cann, FOUR_2_FIVE).outcome == "nothing to restore"
    backup.unlink()
    path.unlink()
    assert restoration(cann, FOUR_2_FIVE).outcome == "not in this CANN"


def test_a_file_is_written_with_the_mode_of_its_model(tmp_path):
    model, path = tmp_path / "model", tmp_path / "new"
    model.write_text("m")
    model.chmod(0o750)
    edits.write_like(model, path, b"data")
    status = path.stat()
    assert (path.read_bytes(), status.st_mode & 0o777, status.st_uid) == (b"data", 0o750, model.stat().st_uid)
    assert [each.name for each in sorted(tmp_path.iterdir())] == ["model", "new"]


@pytest.mark.parametrize(
    ("user", "writes", "allowed"),
    [("root", True, True), ("owner", True, True), ("other", True, False), ("root", False, False)],
)
def test_who_may_write(tmp_path, monkeypatch, user, writes, allowed):
    path = tmp_path / "f.py"
    path.touch()
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: {"root": 0, "owner": owner, "other": owner + 1}[user])
    monkeypatch.setattr(os, "access", lambda place, mode: writes and (place, mode) == (tmp_path, os.W_OK | os.X_OK))
    if allowed:
        edits.require_writable(path)
    else:
        with pytest.raises(UserError, match="run this as root, or as its owner after chmod"):
            edits.require_writable(path)


def test_a_file_may_be_a_link_within_cann_and_not_out_of_it(tmp_path):
    impl = tmp_path / "impl"
    (impl / "dynamic").mkdir(parents=True)
    (impl / "real.py").touch()
    (impl / "link.py").symlink_to("real.py")
    (tmp_path / "out.py").touch()
    (impl / "out.py").symlink_to(tmp_path / "out.py")
    assert edits.inside(impl, "link.py") == impl / "real.py"
    assert edits.inside(impl, "none.py") == impl / "none.py"
    (impl / "gone.py").symlink_to(tmp_path / "not there yet.py")
    for name in ("out.py", "gone.py"):
        with pytest.raises(UserError, match=rf"{name} is a link out of CANN, to {tmp_path}/"):
            edits.inside(impl, name)
