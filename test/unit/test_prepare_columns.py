"""tools/prepare_data.py: encodings, rows and columns of transcripts, each rule on both sides of its limit."""

import codecs

import pytest

from common.program import UserError
from tools.prepare import encodings
from tools.prepare.encodings import decode, find_encoding, read_bytes
from tools.prepare.transcripts import Columns, Row, find_columns, find_delimiter, is_quoted, split_rows

# ---- encodings ----


@pytest.mark.parametrize(
    ("content", "name", "guessed", "text"),
    [
        (codecs.BOM_UTF8 + b"a", "utf-8-sig", False, "a"),
        ("\ufeffa|b".encode("utf-16-le"), "utf-16", False, "a|b"),
        ("\ufeffa|b".encode("utf-16-be"), "utf-16", False, "a|b"),
        ("\ufeffa|b".encode("utf-32-le"), "utf-32", False, "a|b"),
        ("\ufeffa|b".encode("utf-32-be"), "utf-32", False, "a|b"),
        ("a|b\n".encode("utf-16-le"), "utf-16-le", True, "a|b\n"),
        ("a|b\n".encode("utf-16-be"), "utf-16-be", True, "a|b\n"),
        ("a|Grüße".encode(), "utf-8", False, "a|Grüße"),
        (b"", "utf-8", False, ""),
    ],
)
def test_an_encoding_is_told_by_its_mark_or_its_zeros_or_is_utf8(content, name, guessed, text):
    assert find_encoding(content) == (name, guessed)
    assert decode(content, name, "it") == text


def test_only_lines_that_are_not_ascii_tell_an_encoding(monkeypatch):
    """A thousand of others would be in every one."""
    given = []
    monkeypatch.setattr(encodings.chardet, "detect", lambda content: given.append(content) or {"encoding": None})
    assert find_encoding(b"a|plain\nb|Gr\xfc\xdfe\nc|plain\nd|K\xf6ln") == ("", True)
    assert given == [b"b|Gr\xfc\xdfe\nd|K\xf6ln"]
    with pytest.raises(UserError, match=r"it is not text in the encoding \(none found\): it is not known; say it with"):
        decode(b"\xfc", "", "it")


def test_lines_end_as_python_has_them_and_a_mark_is_no_text():
    assert decode("\ufeffa\r\nb\rc\n\r\n".encode("utf-16-le"), "utf-16-le", "it") == "a\nb\nc\n\n"
    assert decode("\ufeffa".encode(), "utf-8", "it") == "a"
    with pytest.raises(UserError, match=r"list\.txt is no text file"):
        decode(b"a\0", "utf-8", "list.txt")
    with pytest.raises(UserError, match=r"list\.txt is not text in the encoding utf-8: byte 2 is bad; say it with"):
        decode(b"ab\xff", "utf-8", "list.txt")


def test_a_text_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.txt: No such file or directory"):
        read_bytes(tmp_path / "none.txt")


# ---- rows ----


@pytest.mark.parametrize(
    ("delimiter", "with_it", "of", "separates"),
    [
        ("|", 2, 4, False), ("|", 3, 4, True), ("\t", 2, 4, False), ("\t", 3, 4, True),
        (";", 9, 10, False), (";", 10, 10, True), (",", 18, 20, False), (",", 19, 20, True),
    ],
)  # fmt: skip
def test_a_sign_separates_columns_if_enough_lines_have_it(delimiter, with_it, of, separates):
    lines = [f"a{delimiter}b"] * with_it + ["c"] * (of - with_it)
    assert find_delimiter(lines) == delimiter * separates


def test_bars_go_before_tabs_these_before_semicolons_and_these_before_commas():
    for delimiters in ("|\t;,", "\t;,", ";,", ","):
        assert find_delimiter([f"a{delimiters}b"] * 3) == delimiters[0]
    assert find_delimiter([]) == ""


@pytest.mark.parametrize(
    ("lines", "quoted"),
    [
        (['"a"|"b"'] * 10, True),
        (['"a"|"b"'] * 10 + ["c|d"] * 1, True),  # more than nine of ten
        (['"a"|"b"'] * 9 + ["c|d"] * 1, False),  # nine of ten
        (['a|"b"'] + ["c|d"] * 9, False),
        (['a|"b ""c"""'] + ["c|d"] * 9, True),  # doubled
        (['a|"b | c"'] + ["c|d"] * 9, True),  # holds the delimiter
        (['a|"b'] * 10, False),  # not ended
        (['"a"|"b"'] * 19 + ['"a|b'], True),  # one in twenty goes on in the next line
        (['"a"|"b"'] * 18 + ['"a|b'] * 2, False),
        (["a|b"] * 10, False),
    ],
)
def test_when_quotation_marks_are_around_cells(lines, quoted):
    assert is_quoted(lines, "|") == quoted


def test_rows_are_numbered_as_lines_of_the_file():
    rows, how = split_rows("\n a | One \n\nb|Two|2\n")
    assert rows == [Row(2, ["a", "One"]), Row(4, ["b", "Two", "2"])]
    assert how == "columns split at '|'"
    rows, how = split_rows('\n"a"| "One\nmore "\n \n"b"|"Two | ""2"""\n')
    assert rows == [Row(2, ["a", "One\nmore"]), Row(5, ["b", 'Two | "2"'])]
    assert how == "columns split at '|', quoted"
    assert split_rows(" just a line\n\n") == ([Row(1, ["just a line"])], "no columns")
    assert split_rows("a\tb") == ([Row(1, ["a", "b"])], "columns split at tabs")
    assert split_rows("\n \n") == ([], "no columns")


@pytest.mark.parametrize(
    ("delimiter", "cells"), [(",", ["b", "Two{}more"]), (";", ["b", "Two{}more"]), ("|", ["b", "Two", "more"])]
)
def test_commas_and_semicolons_of_texts_do_not_separate(delimiter, cells):
    """Where lines have several numbers of them; where all have as many, each does."""
    rows, _ = split_rows(f"a{delimiter}One\nb{delimiter}Two{delimiter}more")
    assert rows[1].cells == [cell.format(delimiter) for cell in cells]
    rows, _ = split_rows(f"a{delimiter}1{delimiter}One\nb{delimiter}2{delimiter}Two")
    assert [len(row.cells) for row in rows] == [3, 3]


# ---- columns ----


def is_audio(cell):
    return cell.endswith(".wav")


def columns_of(*lines, wanted=""):
    rows = [Row(number, line.split("|")) for number, line in enumerate(lines, start=1)]
    return find_columns(rows, is_audio, wanted)


def test_a_header_names_the_columns():
    for header, expected in (
        ("#ID|Speaker|Text", (0, 2, 1, 3)),
        ("text|raw_text|normalized_text|file", (3, 2, -1, 4)),  # the preferred of several
        ("path|sentence|client_id|age", (0, 1, 2, 4)),
        ("Name|TRANSCRIPT", (0, 1, -1, 2)),
    ):
        columns, rows = columns_of(header, *["a.wav|" * (expected[3] - 1) + "x"] * 2)
        assert columns == Columns(*expected)
        assert [row.number for row in rows] == [2, 3]


def test_a_header_has_a_name_and_a_text_and_names_no_audio():
    for first in ("id|words", "words|text", "file.wav|text"):
        _, rows = columns_of(first, "a.wav|One text.")
        assert len(rows) == 2, first
    columns, rows = columns_of("name|text|note", "a.wav|One text.", "b.wav|Another.")  # most lines have fewer
    assert (columns.count, len(rows)) == (3, 2)


def test_columns_as_the_user_names_them_go_before_everything():
    lines = ("name|text|speaker", "a.wav|One text.|anna", "b.wav|Two texts.|max")
    columns, rows = columns_of(*lines, wanted=" speaker, text,name")
    assert (columns, len(rows), str(columns)) == (Columns(2, 1, 0, 3), 2, "speaker, text, name")
    assert columns_of(*lines, wanted="-,name,-")[0] == Columns(1, -1, -1, 3)
    for wanted, said in (
        ("name,text,words", r"--columns has 'words'; the columns are name, text, speaker and -"),
        ("name,name,text", "must have one name, and one text or none"),
        ("-,text,speaker", "must have one name"),
        ("name,text,text", "must have one name"),
        ("name,speaker,speaker", "must have one name"),
        ("name,text", "--columns names 2 columns, and most lines have 3"),
    ):
        with pytest.raises(UserError, match=said):
            columns_of(*lines, wanted=wanted)


def table(*columns):
    return columns_of(*map("|".join, zip(*columns, strict=True)))[0]


NAMES = [f"{i:02}.wav" for i in range(20)]
TEXTS = [f"A text of its own, {'abcdefghijklmnopqrst'[i]}." for i in range(20)]


@pytest.mark.parametrize(
    ("other", "role"),
    [
        ([f"+{i}.5,0:0" for i in range(20)], "-"),  # numbers
        ([f"{i} Hz" for i in range(20)], "text"),
        (["de", "en"] * 10, "speaker"),  # a tenth of them differ
        (["de at", "en us"] * 10, "speaker"),  # whatever blanks they have
        (["d e", "e n", "f r"] * 6 + ["d e"] * 2, "text"),  # more than a tenth, and several words
        (["de", "en", "fr"] * 6 + ["de"] * 2, "speaker"),
        ([f"anna{i % 10}" for i in range(20)], "speaker"),  # half of them
        ([f"anna{i % 11}" for i in range(20)], "text"),
        ([""] * 20, "-"),
        (["de"] * 19 + [""], "-"),
        (["anna"] * 20, "speaker"),
        ([f"{i}" for i in range(10)] * 2, "speaker"),  # numbers of speakers
    ],
)
def test_what_a_column_beside_name_and_text_is(other, role):
    """A later column of texts is preferred: LJ Speech's last one is the normalized text."""
    names = str(table(NAMES, TEXTS, other)).split(", ")
    assert names == ["name", *{"-": ["text", "-"], "text": ["-", "text"], "speaker": ["text", "speaker"]}[role]]


def test_the_name_is_where_most_audio_is():
    assert str(table(TEXTS, NAMES)) == "text, name"
    assert str(table(["x.wav", *TEXTS[1:]], NAMES)) == "text, name"
    assert str(table(NAMES)) == "name"
    # Of columns without any text the longest; of two speakers the first.
    assert str(table(NAMES, ["a"] * 20, ["bb"] * 20)) == "name, speaker, text"
    assert str(table(NAMES, ["a"] * 20, TEXTS, ["bb"] * 20)) == "name, speaker, text, -"


def test_few_lines_may_have_one_value():
    assert str(table(NAMES[:1], ["One text."])) == "name, text"
    assert str(table(NAMES[:2], ["anna", "anna"], ["One text.", "Two."])) == "name, speaker, text"


def test_columns_are_told_by_lines_of_the_usual_width():
    columns, rows = columns_of("a.wav|One text.", "b.wav|Two texts.", "c.wav|Three|more", "d.wav")
    assert (columns, len(rows)) == (Columns(0, 1, -1, 2), 4)
