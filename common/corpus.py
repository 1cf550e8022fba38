"""The clips of a corpus in LJ Speech's layout."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.program import UserError

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def find_clips(data_path: str, training_files: str = "") -> list[Path]:
    """The wavs of ``<data_path>/wavs`` in the order of their names, or those that a file lists.

    UserError if there are none, or if a line of ``metadata.csv`` has no wav.
    """
    if not data_path:
        return _listed_clips(training_files)
    root = Path(data_path)
    if not root.is_dir():
        raise UserError(f"data_path {root} is no folder")
    if not (root / "wavs").is_dir():
        raise UserError(f"data_path {root} has no folder wavs/ in it (LJ Speech's layout: wavs/*.wav, metadata.csv)")
    clips = sorted((root / "wavs").glob("*.wav"))
    if not clips:
        raise UserError(f"{root / 'wavs'} holds no .wav file")
    if (root / "metadata.csv").is_file():
        _check_transcripts(root / "metadata.csv", {clip.stem for clip in clips})
    return clips


def _listed_clips(path: str) -> list[Path]:
    if not path:
        raise UserError("no data: give --data_path=DIR with wavs/*.wav in it")
    return [Path(line.strip()) for line in read_lines(Path(path)) if line.strip()]


def _check_transcripts(path: Path, clips: set[str]) -> None:
    for number, line in enumerate(read_lines(path), start=1):
        name = line.split("|", 1)[0].strip()
        if line.strip() and name not in clips:
            raise UserError(f"{path} line {number}: there is no wavs/{name[:100]}.wav")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without a byte order mark. UserError if it is not a text file."""
    try:
        # Not splitlines, which also splits at characters that a text may hold, and counts other lines than an editor.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error


def read_transcripts(path: Path, columns: tuple[int, int] = (2, 3)) -> dict[str, str]:
    """First column -> last column of lines with so many columns, at least and at most.

    UserError that names file and line for what is wrong in it.
    """
    texts: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        name, *others = (column.strip() for column in line.split("|"))
        if not columns[0] <= 1 + len(others) <= columns[1]:
            wanted = " or ".join(map(str, sorted(set(columns))))
            raise UserError(f"{path} line {number} has {1 + len(others)} columns split by |, must be {wanted}")
        if name in texts:
            raise UserError(f"{path} line {number}: {name[:100]} is there a second time")
        if not others[-1]:
            raise UserError(f"{path} line {number}: the text of {name[:100]} is empty")
        texts[name] = others[-1]
    return texts


def split_clips(clips: list[Item]) -> tuple[list[Item], list[Item]]:
    """Training clips and held-back clips.

    Of the clips in the order of their names the first tenth is held back, at least 1 and at most
    10; of LJ Speech the first ten, as in the Ascend port.
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
