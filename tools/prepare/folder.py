"""The folder of a data set, in which nothing changes before all of it is ready.

New clips go to ``.new/``, with a list of what is done; when all are there they move to ``wavs/``. So a run that was
stopped continues, and a run after some texts were corrected converts only what is new.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.files import make_output_folder, remove_leftovers, written_whole
from common.folder_lock import LOCK
from common.program import UserError, WriteError
from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures
from tools.prepare.sources import Item

MARK = "prepared.json"
DONE = "clips.jsonl"
NEW = ".new"
TEXTS = "metadata.csv"
FORM = 1
"To be raised when something else is made or measured of the same recording."


@dataclass(frozen=True)
class Done:
    """A clip that is written."""

    key: str
    "Stands for the recording and the recipe."
    bytes: int
    clip: ConvertedClip


class Folder:
    """What a run finds in its target, and what it puts there."""

    def __init__(self, path: Path):
        """UserError if there is something that this program has not made, or that was changed since."""
        self.path = path
        self.wavs, self.new = path / "wavs", path / NEW
        if not (path / MARK).is_file() and path.is_dir() and any(map(_is_foreign, path.iterdir())):
            raise UserError(f"{path} holds files, but no {MARK}: this program has not made it; take an empty folder")
        self.there, self.pending = _read_done(path / f".{DONE}"), _read_done(self.new / DONE)
        self.used: dict[str, tuple[Done, Path]] = {}
        "The clips of this run, and the folder each is in."
        self._check_own()

    def begin(self) -> None:
        """Make the folders, and go on where an earlier run was stopped."""
        make_output_folder(self.path)
        remove_leftovers(self.path)
        if not (self.path / MARK).exists():  # first of all: without it what is here is not taken for our own
            self._write(MARK, "{}\n")
        make_output_folder(self.new)
        remove_leftovers(self.new)

    def find(self, item: Item, recipe: Recipe) -> ConvertedClip | None:
        """The clip, if it is written already."""
        key = key_of(item, recipe)
        for done, folder in ((self.pending, self.new), (self.there, self.wavs)):
            one = done.get(item.name)
            if one and one.key == key and _size(folder / f"{item.name}.wav") == one.bytes:
                self.used[item.name] = one, folder
                return one.clip
        return None

    def add(self, item: Item, recipe: Recipe, clip: ConvertedClip) -> None:
        """Note down a clip that was written to ``new``."""
        done = Done(key_of(item, recipe), _size(self.new / f"{item.name}.wav"), clip)
        self.used[item.name] = done, self.new
        with writing(self.new / DONE), open(self.new / DONE, "a", encoding="utf-8") as file:
            file.write(_line(item.name, done))

    def finish(self, items: Mapping[str, Item], facts: dict[str, Any]) -> None:
        """Let ``wavs`` hold these clips and no others, and metadata.csv their texts."""
        make_output_folder(self.wavs)
        with writing(self.path):
            for name in items:
                if self.used[name][1] == self.new:
                    os.replace(self.new / f"{name}.wav", self.wavs / f"{name}.wav")
            for name in (self.there.keys() | self.pending.keys()) - items.keys():
                (self.wavs / f"{name}.wav").unlink(missing_ok=True)
        self._write(f".{DONE}", "".join(_line(name, self.used[name][0]) for name in items))
        texts = "".join(f"{name}|{item.text}\n" for name, item in items.items() if item.text is not None)
        sums = list(dict.fromkeys([hashlib.sha256(texts.encode()).hexdigest(), *self._known_texts()[:1]]))
        self._write(MARK, json.dumps({"metadata_sha256": sums, **facts}, indent=2, ensure_ascii=False) + "\n")
        if texts:
            self._write(TEXTS, texts)
        else:
            (self.path / TEXTS).unlink(missing_ok=True)
        shutil.rmtree(self.new)

    def _check_own(self) -> None:
        for path in sorted(self.wavs.glob("[!.]*")):
            ours = [done[path.stem].bytes for done in (self.there, self.pending) if path.stem in done]
            if path.suffix != ".wav" or _size(path) not in ours:
                raise UserError(f"{path} was not made by this program, or changed since: move it away first")
        texts = self.path / TEXTS
        if texts.is_file() and hashlib.sha256(texts.read_bytes()).hexdigest() not in self._known_texts():
            raise UserError(
                f"{texts} was changed since this program wrote it, and would be overwritten: correct the texts in the"
                " source and remove it, or take another target"
            )

    def _known_texts(self) -> list[str]:
        """Checksums of metadata.csv: what was written last, and before."""
        try:
            return list(json.loads((self.path / MARK).read_text(encoding="utf-8"))["metadata_sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _write(self, name: str, content: str) -> None:
        with written_whole(self.path / name) as file:
            file.write(content.encode())


def _is_foreign(path: Path) -> bool:
    """Whether something is here that no run leaves which is killed as it begins."""
    return path.name != LOCK and not path.match(f".{MARK}.*.part")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """WriteError, with the file's name or else ``path``, for what the system refuses."""
    try:
        yield
    except OSError as error:
        raise WriteError(error.errno, error.strerror, error.filename or str(path)) from error


def key_of(item: Item, recipe: Recipe) -> str:
    """A key that changes as soon as the recording does, or something else is to be made of it."""
    try:
        stat = item.path.stat()
    except OSError:  # converting says it
        return ""
    what = repr((FORM, os.path.realpath(item.path), stat.st_size, stat.st_mtime_ns, asdict(recipe)))
    return hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()


def _line(name: str, done: Done) -> str:
    return json.dumps({"name": name, **asdict(done)}, ensure_ascii=False) + "\n"


def _read_done(path: Path) -> dict[str, Done]:
    """The clips of a list; a line that was not finished, or is of another version, is ignored."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            figures = entry["clip"]["figures"]
            if figures.keys() == {field.name for field in fields(Figures)}:
                found[entry["name"]] = Done(
                    entry["key"], entry["bytes"], ConvertedClip(Figures(**figures), entry["clip"]["steps"])
                )
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
