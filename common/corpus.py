"""The clips of a corpus in LJ Speech's layout."""

import io
import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.audio import CONVERT, Fault
from common.bad_clips import BadClips
from common.files import open_input
from common.program import UserError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

OTHER_AUDIO = {".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aif", ".aiff", ".au", ".wma"}


def find_clips(data_path: str, training_files: str = "", bad: BadClips | None = None) -> list[Path]:
    """The wavs of ``<data_path>/wavs`` in the order of their names, or those that a file lists.

    What is wrong with them and with the names in ``metadata.csv`` goes to ``bad``; without it UserError says so.
    """
    found = bad or BadClips()
    clips = _clips_of_folder(Path(data_path), found) if data_path else listed_clips(training_files)
    if not bad:
        found.settle(len(clips))
    return clips


def _clips_of_folder(root: Path, bad: BadClips) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"data_path {root} is no folder")
    if not (root / "wavs").is_dir():
        raise UserError(f"data_path {root} has no folder wavs/ in it (LJ Speech's layout: wavs/*.wav, metadata.csv)")
    clips = wavs_in(root / "wavs")
    others = [path.name for path in sorted((root / "wavs").iterdir()) if path.suffix.lower() in OTHER_AUDIO]
    if not clips:
        raise UserError(f"{root / 'wavs'} holds no .wav file" + f"; {CONVERT}" * bool(others))
    if others:
        log.warning("%d files in wavs/ are left out: they are no .wav: %s, ...; %s", len(others), others[0], CONVERT)
    first: dict[str, Path] = {}
    for clip in clips:
        if first.setdefault(clip.stem, clip) != clip:
            bad.add(f"{clip} has the same name as {first[clip.stem].name}", Fault.FORMAT, clip)
    if os.path.lexists(root / "metadata.csv"):  # whatever it is
        find = finder(clips)
        for number, line in enumerate(read_lines(root / "metadata.csv"), start=1):
            name = line.split("|", 1)[0].strip()
            if line.strip() and not find(name):
                bad.add(f"{root / 'metadata.csv'} line {number}: there is no wavs/{name[:100]}.wav", Fault.TEXT)
    return clips


def wavs_in(folder: Path) -> list[Path]:
    """The wavs of a folder in the order of their names; without those that begin with a dot, as macOS's ._a.wav do."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".wav" and not p.name.startswith("."))


def finder(clips: list[Path]) -> Callable[[str], Path | None]:
    """A function that finds a clip by its name: the clip of exactly this name, else of one that differs only in case
    or in how accents are composed, as names from another system may."""
    exact = {clip.stem: clip for clip in reversed(clips)}
    alike: dict[str, list[Path]] = {}
    for clip in clips:
        alike.setdefault(name_key(clip.stem), []).append(clip)

    def find(name: str) -> Path | None:
        others = alike.get(name_key(name), [])
        return exact.get(name) or (others[0] if len(others) == 1 else None)

    return find


def name_key(name: str) -> str:
    """Equal for names that differ only in case, or in Unicode's composed and decomposed letters."""
    return unicodedata.normalize("NFC", name).casefold()


def listed_clips(path: str) -> list[Path]:
    """The wavs of a file list: each line is a path, alone or followed by `|text`, as in NVIDIA's lists."""
    if not path:
        raise UserError("no data: give --data_path=DIR with wavs/*.wav in it, or --training_files=FILE")
    names = [line.split("|", 1)[0].strip() for line in read_lines(Path(path)) if line.strip()]
    if not names:
        raise UserError(f"{path} lists no clips")
    return list(map(path_finder(Path(path)), names))


def path_finder(list_path: Path) -> Callable[[str], Path]:
    """A function that gives the path of a list's entry: in the list's folder, else where the program was started; else
    of the one file whose name differs from it in case or in how accents are composed; else as it stands there."""
    folders: dict[Path, dict[str, list[Path]]] = {}

    def alike(path: Path) -> list[Path]:
        if path.parent not in folders:
            files = folders[path.parent] = {}
            for file in path.parent.iterdir() if path.parent.is_dir() else ():
                files.setdefault(name_key(file.name), []).append(file)
        return folders[path.parent].get(name_key(path.name), [])

    def find(name: str) -> Path:
        places = (list_path.parent / name, Path(name))
        for path in places:
            if path.exists():
                return path
        for path in places:
            if len(found := alike(path)) == 1:
                return found[0]
        return Path(name)

    return find


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without a byte order mark. UserError if it is not a text file."""
    try:
        # Not splitlines, which also splits at characters that a text may hold, and counts lines as no editor does.
        with open_input(path) as file:
            return io.TextIOWrapper(file, encoding="utf-8-sig").read().removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise UserError(f"{path} is not UTF-8 text: {byte}; save it as UTF-8") from error


def read_transcripts(path: Path, columns: tuple[int, int] = (2, 3), bad: BadClips | None = None) -> dict[str, str]:
    """First column -> last column, of lines whose number of columns lies within ``columns`` (least, most).

    The faults, with file and line, go to ``bad``; without it they are a UserError.
    """
    found = bad or BadClips()
    texts: dict[str, str] = {}
    middle = set()
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        name, *others = (column.strip() for column in line.split("|"))
        if fault := _fault_of_line(name, others, columns, texts):
            found.add(f"{path} line {number}{fault}", Fault.TEXT)
            continue
        texts[name] = others[-1]
        middle.add(others[0])
    last = set(texts.values())
    if len(middle) > 2 and 2 * len(last) <= len(middle):
        some = ", ".join(repr(text[:50]) for text in sorted(last)[:3])
        raise UserError(
            f"{path}: the last column has only {len(last)} different values ({some}), which are no texts but perhaps"
            " speakers: the text must be the last column"
        )
    if not bad:
        found.settle(len(texts))
    return texts


def _fault_of_line(name: str, others: list[str], columns: tuple[int, int], texts: dict[str, str]) -> str:
    if not columns[0] <= 1 + len(others) <= columns[1]:
        wanted = " or ".join(map(str, sorted(set(columns))))
        return f" has {1 + len(others)} columns split by |, must be {wanted}"
    if name in texts:
        return f": {name[:100]} occurs a second time"
    return "" if others[-1] else f": the text of {name[:100]} is empty"


def hold_back_clips(clips: list[Item]) -> tuple[list[Item], list[Item]]:
    """Training clips and held-back clips.

    The first tenth of the clips, in the order given, is held back, at least 1 and at most 10; of LJ
    Speech the first ten, as in the Ascend port.
    """
    if len(clips) < 2:
        raise UserError("at least 2 clips are needed, one to train on and one to hold back")
    held_back = min(10, max(1, len(clips) // 10))
    return clips[held_back:], clips[:held_back]


def first_readable(load: Callable[[int], dict], index: int, count: int, on_bad_clip: str) -> dict:
    """``load(index)``, or the next of the ``count`` items if clips that cannot be read are to be skipped."""
    for i in range(count):
        try:
            return load((index + i) % count)
        except UserError as error:
            if on_bad_clip == "stop":
                raise
            log.warning("skipped: %s", error)
    raise UserError("none of the clips can be read any more")
