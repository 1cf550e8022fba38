"""Transcripts in a table: which sign separates its columns, and which column is what."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.program import UserError

DELIMITERS = "|\t;,"
"Signs that separate columns, in the order in which they are looked for."
HEADER_NAMES = {
    "name": ("audio_file", "file_name", "filename", "file", "audio_path", "path", "audio", "wav", "name", "id"),
    "text": ("normalized_text", "normalized_transcription", "sentence", "transcription", "transcript", "text",
             "raw_text"),
    "speaker": ("speaker_name", "speaker_id", "speaker", "client_id", "spk"),
}  # fmt: skip
"Names of columns in a first line; for each role, the ones to be preferred first."
IGNORED = "-"
LOOKED_AT = 1000
"Rows from which the roles of the columns are found."
QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    number: int
    "Of its first line in the file, from 1 on."
    cells: list[str]


@dataclass(frozen=True)
class Columns:
    """The numbers of the columns, from 0 on; -1 for one that does not exist."""

    name: int
    text: int
    speaker: int
    count: int
    "Of all columns."

    def __str__(self) -> str:
        roles = {self.name: "name", self.text: "text", self.speaker: "speaker"}
        return ", ".join(roles.get(column, IGNORED) for column in range(self.count))


def split_rows(text: str) -> tuple[list[Row], str]:
    """The rows of a table, and how its columns are separated; those of lines without content are left out."""
    lines = [line for line in text.split("\n") if line.strip()]
    delimiter = find_delimiter(lines)
    quoted = bool(delimiter) and is_quoted(lines, delimiter)
    rows = _quoted_rows(text, delimiter) if quoted else _plain_rows(text, delimiter)
    how = {"": "no columns", "\t": "columns split at tabs"}.get(delimiter, f"columns split at '{delimiter}'")
    return rows, how + ", quoted" * quoted


def find_delimiter(lines: list[str]) -> str:
    """The sign that separates the columns; empty if each line is one cell."""
    for delimiter in DELIMITERS:
        # Commas and semicolons are in many texts; bars and tabs are in hardly any.
        share = 0.5 if delimiter in "|\t" else 0.9
        if sum(delimiter in line for line in lines) > share * len(lines):
            return delimiter
    return ""


def is_quoted(lines: list[str], delimiter: str) -> bool:
    """Whether quotation marks stand around cells, rather than in the texts.

    Then all that begin a cell also end one, and either most lines have them, or some are doubled or hold the
    delimiter.
    """
    begins = re.compile(rf'(?:^|{re.escape(delimiter)})\s*"')
    whole = re.compile(rf"(?:^|{re.escape(delimiter)})\s*({QUOTED.pattern})\s*(?=$|{re.escape(delimiter)})")
    with_quotes = [line for line in lines if begins.search(line)]
    cells = [whole.findall(line) for line in with_quotes]
    if not with_quotes or sum(map(bool, cells)) < 0.95 * len(with_quotes):  # a cell may go over several lines
        return False
    needed = any('""' in cell[1:-1] or delimiter in cell for some in cells for cell in some)
    return needed or len(with_quotes) > 0.9 * len(lines)


def _quoted_rows(text: str, delimiter: str) -> list[Row]:
    rows, first = [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(Row(first, [cell.strip() for cell in cells]))
            first = reader.line_num + 1
    except csv.Error as error:
        plain = _plain_rows(text, delimiter)
        if all(len(cell) > 1 and cell[0] == cell[-1] == '"' for row in plain for cell in row.cells):
            # Around each cell, and nobody has doubled those in the texts.
            return [Row(row.number, [cell[1:-1].strip() for cell in row.cells]) for row in plain]
        raise UserError(f"from line {first} on quotation marks do not match: {error}") from error
    return rows


def _plain_rows(text: str, delimiter: str) -> list[Row]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not delimiter:
        return [Row(number, [line.strip()]) for number, line in lines]
    counts = Counter(line.count(delimiter) for _, line in lines)
    # Commas that are in texts, too: only the first one separates.
    splits = 1 if delimiter in ";," and len(counts) > 1 else -1
    return [Row(number, [cell.strip() for cell in line.split(delimiter, splits)]) for number, line in lines]


def find_columns(rows: list[Row], is_audio: Callable[[str], bool], wanted: str = "") -> tuple[Columns, list[Row]]:
    """The columns, and the rows without the header, if there is one.

    ``is_audio`` says whether a cell names an audio file. ``wanted`` are the columns as the user names them, such as
    ``name,speaker,text``. UserError if that does not fit, or the columns cannot be told.
    """
    count = Counter(len(row.cells) for row in rows).most_common(1)[0][0]
    header = [cell.lower().lstrip("#") for cell in rows[0].cells]
    named = {role: next((header.index(n) for n in names if n in header), -1) for role, names in HEADER_NAMES.items()}
    has_header = min(named["name"], named["text"]) >= 0 and not is_audio(rows[0].cells[named["name"]])
    if has_header:
        rows, count = rows[1:], len(header)
    if wanted:
        return _as_wanted(wanted, count), rows
    if has_header:
        return Columns(named["name"], named["text"], named["speaker"], count), rows
    table = [row.cells for row in rows if len(row.cells) == count][:LOOKED_AT]
    return _by_content(list(zip(*table)), is_audio), rows


def _as_wanted(wanted: str, count: int) -> Columns:
    roles = [role.strip() for role in wanted.split(",")]
    if unknown := set(roles) - {"name", "text", "speaker", IGNORED}:
        raise UserError(f"--columns has {unknown.pop()!r}; the columns are name, text, speaker and {IGNORED}")
    if roles.count("name") != 1 or roles.count("text") > 1 or roles.count("speaker") > 1:
        raise UserError(f"--columns is {wanted!r}, must have one name, and one text or none")
    if len(roles) != count:
        raise UserError(f"--columns names {len(roles)} columns, and most lines have {count}")
    name, text, speaker = (roles.index(role) if role in roles else -1 for role in ("name", "text", "speaker"))
    return Columns(name, text, speaker, count)


def _by_content(columns: list[Sequence[str]], is_audio: Callable[[str], bool]) -> Columns:
    """What the columns are, from their contents: audio has its files, and texts differ from line to line."""
    hits = [sum(map(is_audio, column)) for column in columns]
    name = hits.index(max(hits))
    others = [number for number in range(len(columns)) if number != name]
    texts = [number for number in others if not _is_label(columns[number])]
    longest = max(others, key=lambda number: sum(map(len, columns[number])), default=-1)
    text = texts[-1] if texts else longest  # LJ Speech's last column is the normalized text
    speakers = [number for number in others if number != text and _is_speaker(columns[number])]
    return Columns(name, text, speakers[0] if speakers else -1, len(columns))


def _is_label(values: Sequence[str]) -> bool:
    """Whether these are numbers, speakers, languages or nothing, rather than texts."""
    known = [value for value in values if value]
    different = len(set(known))
    words = sum(" " in value for value in known)
    return (
        different <= max(1, len(values) / 10)
        or all(re.fullmatch(r"[-+]?[\d.,:]+", value) for value in known)
        or (words == 0 and different <= len(values) / 2)
    )


def _is_speaker(values: Sequence[str]) -> bool:
    return all(values) and (len(set(values)) <= len(values) / 2 or len(set(values)) == 1) and _is_label(values)
