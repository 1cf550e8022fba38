"""What a user has: lists of clips, pairs of audio and text, or audio alone."""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.corpus import name_key
from common.program import UserError
from tools.prepare.audio_files import AudioFiles, is_audio, walk, without_ending
from tools.prepare.encodings import decode, find_encoding, read_bytes
from tools.prepare.problems import Kind, Problem
from tools.prepare.transcripts import Row, find_columns, split_rows

LIST_NAMES = {"metadata.csv", "metadata.tsv", "metadata.txt"}
TEXT_ENDINGS = (".normalized.txt", ".txt", ".lab")
"Of the text beside an audio file; LibriTTS has the first."
JOINERS = "\u200c\u200d"
"Invisible like those left out, but Persian and the scripts of India are spelled with them."
FEW = 3
NAMES = {"utf-8-sig": "UTF-8 with a byte order mark"}


@dataclass(frozen=True)
class Item:
    """A clip to be."""

    path: Path
    text: str | None
    "None where only audio was found."
    where: str
    "The file and the line that say so."
    speaker: str = ""
    name: str = ""
    "In the data set."


@dataclass
class Source:
    """What was found, and how it was understood."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    "Audio of lines that do not fit, which are problems already."

    def add(self, kind: Kind, message: str) -> None:
        self.problems.append(Problem(kind, message))


def find_source(path: Path, audio: Path | None = None, columns: str = "", encoding: str = "") -> Source:
    """Everything in a folder or a list; each audio file at most once, in the order of the names.

    ``audio``: where the audio is, if not beside the list. ``columns``, ``encoding``: in place of what is guessed.
    UserError if there is nothing to read.
    """
    source = Source()
    if path.is_dir():
        lists = _lists_in(path)
        files = AudioFiles(audio or path)
        for list_path in lists:
            _read_list(source, list_path, AudioFiles(audio or list_path.parent), columns, encoding)
        if not lists:
            _read_pairs(source, path, files, encoding)
        used = {os.path.realpath(path) for path in [*source.passed_over, *(item.path for item in source.items)]}
        for left in files.paths if lists else ():
            if os.path.realpath(left) not in used:
                source.add(Kind.UNUSED, f"{left}: no list has a line for it")
    elif path.is_file():
        if is_audio(path):
            raise UserError(f"{path} is audio: name a folder of clips, or a list with `path|text` lines")
        _read_list(source, path, AudioFiles(audio or path.parent), columns, encoding)
    else:
        raise UserError(f"there is no {path}")
    source.items = _named(_once(source))
    return source


def _lists_in(root: Path) -> list[Path]:
    """The lists in a folder; in and below a folder with a list no other one is looked for."""
    found: list[Path] = []
    for path in sorted(walk(root), key=lambda path: (len(path.parts), str(path))):
        if path.name.lower() in LIST_NAMES and not any(known.parent in path.parents for known in found):
            found.append(path)
    return found


def _read_list(source: Source, path: Path, files: AudioFiles, columns: str, encoding: str) -> None:
    content = read_bytes(path)
    name, guessed = (encoding, False) if encoding else find_encoding(content)
    text = decode(content, name, str(path))
    try:
        rows, how = split_rows(text)
        if not rows:
            raise UserError("it is empty")
        roles, rows = find_columns(rows, lambda cell: bool(files.find(cell)), columns)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    called = (
        NAMES.get(name, name.upper())
        + " by its bytes" * guessed
        + ", CRLF" * (b"\r\n" in content or b"\r\0\n" in content)
    )
    source.facts.append(f"{path}: {len(rows)} lines, {called}, {how}: {roles}")
    for row in rows:
        where = f"{path} line {row.number}"
        if len(row.cells) != roles.count:
            source.add(Kind.DOUBTFUL, f"{where} has {len(row.cells)} columns, most have {roles.count}")
            source.passed_over += files.find(row.cells[roles.name]) if roles.name < len(row.cells) else []
        elif audio := _find(source, files, row.cells[roles.name], where):
            text, speaker = (row.cells[column] if column >= 0 else "" for column in (roles.text, roles.speaker))
            source.items.append(Item(audio, tidy(text) if roles.text >= 0 else None, where, speaker))
    if rows and not source.items:
        raise UserError(
            f"{path}: there is no audio for any of its {len(rows)} lines, such as {_shown(rows[0])}, in {files.root};"
            " say where it is with --audio=DIR, and what the columns are with --columns=name,text"
        )


def _find(source: Source, files: AudioFiles, name: str, where: str) -> Path | None:
    found = files.find(name)
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(str(path) for path in found[:FEW])
        source.add(Kind.DOUBTFUL, f"{where}: {name[:100]} may be {len(found)} files: {some}")
    else:
        source.add(Kind.NO_AUDIO, f"{where}: there is no audio file {name[:100]}")
    return None


def _read_pairs(source: Source, root: Path, files: AudioFiles, encoding: str) -> None:
    """Audio with a text file of its name, beside it, or elsewhere if there is only one of this name."""
    texts: dict[str, list[Path]] = {}
    for path in walk(root):
        if ending := next((ending for ending in TEXT_ENDINGS if path.name.lower().endswith(ending)), ""):
            texts.setdefault(name_key(path.name[: -len(ending)]), []).append(path)
    pairs = {path: _text_beside(path, texts) for path in files.paths}
    if not pairs:
        raise UserError(f"{files.root} holds no audio: name a folder of clips, or a list with `path|text` lines")
    if not any(pairs.values()):
        lists = [str(path) for path in walk(root) if path.suffix.lower() in (".csv", ".tsv", ".txt", ".json")]
        hint = f"; if {', '.join(lists[:FEW])} has the texts, name it in place of the folder" * bool(lists)
        source.facts.append(f"{root}: {len(pairs)} audio files alone" + hint)
        source.items = [Item(path, None, str(path)) for path in pairs]
        return
    contents, guess = _read_texts({path for path in pairs.values() if path}, encoding)
    for path, text_path in pairs.items():
        if text_path:
            source.items.append(Item(path, tidy(contents[text_path]), str(text_path)))
        else:
            source.add(Kind.UNUSED, f"{path}: there is no {path.stem}.txt for it")
    source.facts.append(f"{root}: {len(source.items)} pairs of audio and text{guess}")


def _read_texts(paths: Iterable[Path], encoding: str) -> tuple[dict[Path, str], str]:
    """The texts of files, and the encoding of those that do not say it: one alone is too short to guess from."""
    contents = {path: read_bytes(path) for path in sorted(paths)}
    found = {path: find_encoding(content) for path, content in contents.items()}
    odd = [content for path, content in contents.items() if found[path][1]]
    guess = encoding or (find_encoding(b"\n".join(odd))[0] if odd else "")
    names = {path: guess if encoding or guessed else name for path, (name, guessed) in found.items()}
    said = f", {guess.upper()}" + " by the bytes of all" * (not encoding)
    return {path: decode(contents[path], names[path], str(path)) for path in contents}, said * bool(odd)


def _text_beside(path: Path, texts: dict[str, list[Path]]) -> Path | None:
    found = texts.get(name_key(without_ending(path.name)), [])
    beside = [text for text in found if text.parent == path.parent] or found
    best = sorted(beside, key=lambda text: [text.name.lower().endswith(ending) for ending in TEXT_ENDINGS].index(True))
    return best[0] if len({text.parent for text in beside}) == 1 else None


def tidy(text: str) -> str:
    """Text of one line, its letters composed, without the sign that separates columns and without invisible ones."""
    seen = "".join(c for c in text if c.isspace() or c in JOINERS or unicodedata.category(c) not in ("Cc", "Cf"))
    return " ".join(unicodedata.normalize("NFC", seen).replace("|", " ").split())


def _once(source: Source) -> list[Item]:
    """The items without those whose audio has several texts, each once."""
    by_audio: dict[str, list[Item]] = {}
    for item in source.items:
        by_audio.setdefault(os.path.realpath(item.path), []).append(item)
    left = []
    for items in by_audio.values():
        if len({item.text for item in items}) > 1:
            lines = ", ".join(item.where for item in items[:FEW])
            source.add(Kind.DOUBTFUL, f"{items[0].path} has {len(items)} texts: {lines}")
        else:
            left.append(items[0])
    return left


def _named(items: Iterable[Item]) -> list[Item]:
    """The items with names for the data set: those of the files, with their folders where that is not enough."""
    items = list(items)
    names = [_plain(without_ending(item.path.name)) for item in items]
    root = os.path.commonpath([item.path.parent for item in items]) if items else ""
    for unclear in _clashes(names):
        folders = os.path.relpath(items[unclear].path.parent, root)
        names[unclear] = _plain("_".join([*(part for part in Path(folders).parts if part != "."), names[unclear]]))
    for unclear in _clashes(names):  # a_b.wav beside a/b.wav; a.wav beside a.WAV
        names[unclear] += f"_{items[unclear].path.suffix[1:]}"
    taken: set[str] = set()
    for number, name in enumerate(names):
        unique, count = name, 1
        while name_key(unique) in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(name_key(unique))
        names[number] = unique
    named = [replace(item, name=name) for item, name in zip(items, names)]
    return sorted(named, key=lambda item: item.name)


def _plain(name: str) -> str:
    """A name that can stand in metadata.csv."""
    name = unicodedata.normalize("NFC", name.encode(errors="surrogateescape").decode(errors="replace"))
    return re.sub(r"[|/\\\x00-\x1f\x7f\ufffd]+", "_", name).strip().lstrip(".") or "clip"


def _clashes(names: list[str]) -> list[int]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name_key(name), []).append(number)
    return [number for numbers in places.values() if len(numbers) > 1 for number in numbers]


def _shown(row: Row) -> str:
    return repr(row.cells[0][:100])
