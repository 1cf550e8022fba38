"""The audio files of a folder, found by the names that lists have for them."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from common.corpus import OTHER_AUDIO, name_key
from common.program import UserError

ENDINGS = (
    ".wav",
    ".flac",
    ".aif",
    ".aiff",
    ".au",
    ".w64",
    ".rf64",
    *sorted(OTHER_AUDIO - {".flac", ".aif", ".aiff", ".au"}),
)
"The better ones first: of files that differ only in their endings the first is taken."


def walk(root: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders, in the order of their names. Links are followed; names that begin with
    a dot, as macOS's ``._a.wav``, are left out. UserError for a folder that cannot be read."""

    def cannot_read(error: OSError) -> None:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    seen = set()
    for folder, folders, files in os.walk(root, onerror=cannot_read, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def is_audio(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def without_ending(name: str) -> str:
    """A name without the ending of an audio file; other dots belong to it."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in ENDINGS else name


def parts_of(name: str) -> list[str]:
    """A path in the form of any system, in parts that can be compared."""
    return [name_key(part) for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]


class AudioFiles:
    """The audio files in a folder. They are looked for only when a name is not a path by itself."""

    def __init__(self, root: Path):
        self.root = root

    @cached_property
    def paths(self) -> list[Path]:
        return [path for path in walk(self.root) if is_audio(path)]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self.paths:
            found.setdefault(name_key(without_ending(path.name)), []).append(path)
        return found

    def find(self, name: str) -> list[Path]:
        """The files that a name may mean: none, one, or several where it is ambiguous.

        It may be a path, absolute or relative, of another machine or system, without its folder or ending, in
        another case or with accents composed differently.
        """
        if not name:
            return []
        for path in (self.root / name, Path(name)):
            if is_audio(path) and os.path.isfile(path):
                return [path]
        *folders, last = parts_of(name) or [""]
        found = self._by_name.get(without_ending(last), [])
        exact = [path for path in found if name_key(path.name) == last]
        found = exact or _best_endings(found)
        while len(found) > 1 and folders:  # as many of its folders as tell them apart
            tail = [*folders, without_ending(last)]
            fitting = [path for path in found if self._parts(path)[-len(tail) :] == tail]
            if fitting:
                found = fitting
                break
            folders = folders[1:]
        same_case = [
            path for path in found if without_ending(path.name) == without_ending(re.split(r"[/\\]", name)[-1])
        ]
        return same_case or found

    def _parts(self, path: Path) -> list[str]:
        *folders, last = parts_of(str(path))
        return [*folders, without_ending(last)]


def _best_endings(paths: list[Path]) -> list[Path]:
    """The files, but of those in one folder that differ only in their endings only the first by ``ENDINGS``."""
    best: dict[tuple[Path, str], Path] = {}
    for path in sorted(paths, key=lambda path: ENDINGS.index(path.suffix.lower())):
        best.setdefault((path.parent, without_ending(path.name)), path)
    return [path for path in paths if path in best.values()]
