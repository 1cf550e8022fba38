"""A pronunciation dictionary replaces words by phones and is checked line by line."""

import pytest

from common.program import UserError
from tacotron2.text import sequence_to_text, text_to_sequence
from tacotron2.text.dictionary import load_dictionary, pronounce

LINES = """;;; # a head
'TIS  T IH1 Z
HELLO  HH AH0 L OW1
HELLO(1)  HH EH0 L OW1
jack's JH AE1 K S # of cmusphinx
two\tT UW1

FORTY  F AO1 R T IY0
"""


@pytest.fixture
def dictionary(tmp_path):
    return load_dictionary(write(tmp_path, LINES.encode()))


def write(folder, content):
    path = folder / "a dictionary"
    path.write_bytes(content)
    return path


def test_a_dictionary_is_read(dictionary):
    assert {word: " ".join(symbols) for word, symbols in dictionary.items()} == {
        "'tis": "@T @IH1 @Z",
        "hello": "@HH @AH0 @L @OW1",
        "jack's": "@JH @AE1 @K @S",
        "two": "@T @UW1",
        "forty": "@F @AO1 @R @T @IY0",
    }


@pytest.mark.parametrize(
    "content",
    [
        LINES.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + LINES.encode(),
        LINES.rstrip().encode(),
    ],
)
def test_line_ends_and_marks_make_no_difference(tmp_path, dictionary, content):
    assert load_dictionary(write(tmp_path, content)) == dictionary


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_encodings(tmp_path, encoding):
    """Windows writes an ellipsis as what is an end of line in Unicode."""
    content = ";;; of words\x85 and more\nDÉJÀ  D EY1\n\x85A  AH0"
    assert load_dictionary(write(tmp_path, content.encode(encoding))) == {"déjà": ["@D", "@EY1"], "a": ["@AH0"]}


def test_the_first_pronunciation_counts_and_a_number_sign_in_a_word_is_no_comment(tmp_path):
    lines = "A#(2)  AH0\nA#  EY1\nB#2  B # a comment\nC(x)  S\n"
    assert load_dictionary(write(tmp_path, lines.encode())) == {"a#": ["@AH0"], "b#2": ["@B"], "c(x)": ["@S"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, HELLO 'hello' hellos!", "{HH AH0 L OW1}, {HH AH0 L OW1} '{HH AH0 L OW1}' hellos!"),
        ("Jack's jacks", "{JH AE1 K S} jacks"),
        ("42", "{F AO1 R T IY0}-{T UW1}"),
        ("{T UW1} two {two} {HH}", "{T UW1} {T UW1}  {HH}"),
        ("Dr. Two", "doctor {T UW1}"),
    ],
)
def test_words_are_looked_up_after_cleaning(dictionary, text, expected):
    assert sequence_to_text(text_to_sequence(text, ["english_cleaners"], dictionary)) == expected


def test_case_makes_no_difference(dictionary):
    assert sequence_to_text(text_to_sequence("TWO two", [], dictionary)) == "{T UW1} {T UW1}"


@pytest.mark.parametrize("text", ["", "it's 'a' _b_ 1c é'", "'''", "don''t\n"])
def test_what_is_in_no_dictionary_stays(dictionary, text):
    assert "".join(pronounce(text, dictionary)) == text
    assert pronounce(text, {}) == list(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A  AH0\nB\n", "line 2: 'B' has no phones; write it as"),
        (b"A  AH0\n\nB  XX\n", "line 3: 'XX' is no phone"),
        (b"A  AH3\n", "line 1: 'AH3' is no phone"),
        (b"A  ah0\n", "line 1: 'ah0' is no phone"),
        (b"B # B IY1\n", "line 1: 'B' has no phones"),
        (b"\x89PNG\r\n\x00\xff 1", r"line 1: '\\x89PNG' has no phones"),
        (b"", "holds no words"),
        (b";;; nothing\n", "holds no words"),
    ],
)
def test_dictionaries_that_are_refused(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        load_dictionary(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "message"), [("none", "none: No such file"), (".", "Is a directory")])
def test_dictionaries_that_cannot_be_read(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        load_dictionary(tmp_path / name)


def test_the_dictionary_that_comes_with_the_repository():
    dictionary = load_dictionary("cmudict")
    assert len(dictionary) > 120_000
    assert dictionary["hello"] == ["@HH", "@AH0", "@L", "@OW1"]
    assert text_to_sequence("Hello.", ["english_cleaners"], dictionary) == text_to_sequence("{HH AH0 L OW1}.", [])
