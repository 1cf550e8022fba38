"""Changes of CANN's operator files: planned, and made in all files or in none."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import open_input, written_whole
from common.program import UserError
from tools.tbe.lists import FIVE_2_FOUR, FOUR_2_FIVE, TRANSPOSE, add_shapes

if TYPE_CHECKING:
    from tools.tbe.lists import Shape

BACKUP_MARK = ".before_patch_tbe."
"In an original's name, between that of its file and two digests: of what --apply made of it, and of the original."
DIGITS = 16
"Of a digest in such a name."

TRANS_DATA = (FOUR_2_FIVE, FIVE_2_FOUR)
NO_LOSS = {
    TRANSPOSE: "Transpose takes any shape since December 2021",
    **dict.fromkeys(TRANS_DATA, "TransData does without this file since September 2021"),
}
LOSS = "this CANN is older than 5.0.2, where the list came, or its list was rewritten by hand"


@dataclass
class Edit:
    """The planned change of one file."""

    name: str
    outcome: str
    "For the report, when it is done."
    path: Path
    before: bytes | None
    "None: there is no such file."
    after: bytes | None
    added: int = 0
    "How many shapes are added."
    original: Path | None = None
    "Where an earlier --apply has kept the original."
    is_loss: bool = False
    "Whether the list is missing although no newer CANN has made it unnecessary."

    @property
    def contents(self) -> tuple[bytes, bytes]:
        """Before and after, of a file that is there."""
        assert self.before is not None and self.after is not None
        return self.before, self.after


def addition(impl: Path, name: str, shapes: list[Shape]) -> Edit:
    """The edit that adds to a list what it lacks."""
    path = inside(impl, name)
    before = read(path)
    try:
        result = None if before is None else add_shapes(before, name, shapes)
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    if before is None or result is None:
        is_loss = is_missed(impl, name)
        why = f"a loss: {LOSS}" if is_loss else f"no loss: {NO_LOSS[name]}"
        return Edit(name, f"not in this CANN, {why}", path, before, before, is_loss=is_loss)
    if not result.added:
        return Edit(name, "already there", path, before, before)
    count = len(result.added)
    original = original_of(path, before) or original_of(path, result.data)
    return Edit(name, f"patched ({count} added)", path, before, result.data, count, original)


def is_missed(impl: Path, name: str) -> bool:
    """Whether a file that has no list, or does not exist, would need it."""
    # The lists of both operators are older than the removal of TransData's files in February 2022.
    signs_of_age = TRANS_DATA if name == TRANSPOSE else [name]
    return any((impl / sign).exists() for sign in signs_of_age)


def restoration(impl: Path, name: str) -> Edit:
    """The edit that puts the original back, provided that the file is as --apply left it."""
    path = inside(impl, name)
    before = read(path)
    original = original_of(path, before or b"")
    if original:
        return Edit(name, "restored", path, before, read_original(original), original=original)
    for other in path.parent.glob(f"{path.name}{BACKUP_MARK}*"):
        if read(other) != before:
            raise UserError(f"{path} was changed after --apply and is left alone; its original is {other}")
    return Edit(name, "not in this CANN" if before is None else "nothing to restore", path, before, before)


def commit(edits: list[Edit]) -> None:
    """Write all the files or none. Raises UserError if one was changed since it was read."""
    changes = [edit for edit in edits if edit.after != edit.before]
    for edit in changes:
        require_writable(edit.path)
    for edit in edits:
        require_unchanged(edit)
    begun = []
    try:
        for edit in changes:
            require_unchanged(edit)
            begun.append(edit)
            before, after = edit.contents
            if edit.added and not edit.original:
                write_like(edit.path, backup_of(edit.path, after, before), before)
            write_like(edit.path, edit.path, after)
    except BaseException:
        put_back(begun)
        raise
    for edit in changes:
        if edit.original and edit.added:
            os.replace(edit.original, renamed(edit.original, edit.contents[1]))
        elif edit.original:
            edit.original.unlink()


def put_back(begun: list[Edit]) -> None:
    """Undo what ``commit`` has begun."""
    stuck = []
    for edit in begun:
        before, after = edit.contents
        try:
            if read(edit.path) == after:
                write_like(edit.path, edit.path, before)
            if edit.added and not edit.original and read(edit.path) == before:
                with suppress(FileNotFoundError):
                    backup_of(edit.path, after, before).unlink()
        except OSError:
            stuck.append(str(edit.path))
    if stuck:
        raise UserError(f"writing failed, and so did putting back {', '.join(stuck)}: see to the disk, then run again")


def inside(impl: Path, name: str) -> Path:
    """The file without links. Raises UserError if they lead out of CANN's folder."""
    path = Path(os.path.realpath(impl / name))
    if impl not in path.parents:
        raise UserError(f"{impl / name} is a link out of CANN, to {path}")
    return path


def read(path: Path) -> bytes | None:
    """The file's bytes; None if there is no such file."""
    try:
        with open_input(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def backup_of(path: Path, made: bytes, original: bytes) -> Path:
    """Path of the backup of the file ``original`` that ``--apply`` turned into ``made``."""
    return path.with_name(f"{path.name}{BACKUP_MARK}{digest(made)}.{digest(original)}")


def renamed(backup: Path, made: bytes) -> Path:
    """The backup's path once ``--apply`` has turned the file into ``made``; the digest of the original stays."""
    name, mark, digests = backup.name.rpartition(BACKUP_MARK)
    return backup.with_name(f"{name}{mark}{digest(made)}{digests[DIGITS:]}")


def original_of(path: Path, made: bytes) -> Path | None:
    """The backup of what ``--apply`` turned into ``made``."""
    return next(path.parent.glob(f"{path.name}{BACKUP_MARK}{digest(made)}*"), None)


def read_original(backup: Path) -> bytes | None:
    """The original in a backup. Raises UserError if it is not as ``--apply`` kept it."""
    data = read(backup)
    expected = backup.name.rpartition(BACKUP_MARK)[2][DIGITS + 1 :]
    if data is not None and expected not in ("", digest(data)):  # earlier versions gave no digest of the original
        raise UserError(f"{backup} is damaged (its checksum differs): nothing is restored; install CANN's file again")
    return data


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def require_unchanged(edit: Edit) -> None:
    if read(edit.path) != edit.before:
        raise UserError(f"{edit.path} was changed by somebody else just now: run again")


def require_writable(path: Path) -> None:
    # Only root and the owner can give the new file its old owner.
    ours = os.geteuid() in (0, path.stat().st_uid)
    if not ours or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {path.parent}: run this as root, or as its owner after chmod u+w")


def write_like(model: Path, path: Path, data: bytes) -> None:
    """Write a file with owner, mode and extended attributes of the file ``model``."""
    status = model.stat()
    with written_whole(path) as file:
        os.chown(file.name, status.st_uid, status.st_gid)
        shutil.copystat(model, file.name)
        file.write(data)
