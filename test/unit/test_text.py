"""Text becomes the ids NVIDIA/tacotron2 makes of it, and what it loses on the way is said."""

import json
import random
import re
import subprocess
import sys
import time

import pytest

from common.program import UserError
from conftest import ROOT
from tacotron2.text import sequence_to_text, text_to_sequence
from tacotron2.text.remarks import remarks
from tacotron2.text.symbols import PHONES, SYMBOLS

ENGLISH = ["english_cleaners"]
CASES = json.loads((ROOT / "test/data/reference/text.json").read_text(encoding="utf-8"))


def spoken(text, cleaners=ENGLISH):
    return sequence_to_text(text_to_sequence(text, cleaners))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['cleaner']}-{case['text'][:12]}")
def test_ids_are_the_references(case):
    assert text_to_sequence(case["text"], [case["cleaner"]]) == case["ids"]


def test_every_symbol_has_the_references_place():
    """Places read off the reference, and the order between them."""
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 148
    places = {0: "_", 1: "-", 2: "!", 11: " ", 12: "A", 37: "Z", 38: "a", 63: "z", 64: "@AA", 67: "@AA2", 147: "@ZH"}
    assert {place: SYMBOLS[place] for place in places} == places
    assert len(PHONES) == 84
    assert sorted(SYMBOLS[64:]) == SYMBOLS[64:]


def test_text_of_symbols_comes_back():
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(1, 148) for _ in range(rng.randrange(30))]
        assert text_to_sequence(sequence_to_text(ids), []) == ids


def test_ids_that_are_none_are_left_out():
    assert sequence_to_text([-1, 38, 148, 10**9, 39]) == "ab"


def test_the_padding_cannot_be_written():
    assert text_to_sequence("a_b~", []) == [38, 39]
    assert sequence_to_text([0]) == "_"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("A{B}C", "a{B}c"),
        ("{HH AH0} {L OW1}", "{HH AH0} {L OW1}"),
        ("{HH}{AH0}", "{HH AH0}"),
        ("{ HH\t AH0 }", "{HH AH0}"),
        ("{XX1 HH hh}", "{HH}"),
        ("{HH AH0", "hh ahzero"),
        ("HH} a", "hh a"),
        ("{", ""),
        ("}", ""),
        ("{}", ""),
        ("{ }", ""),
        ("{} a {HH}", ""),  # the first brace reaches to the only one that leaves something between
        ("{{HH}}", ""),
        ("{HH {AH0} L}", "{HH} l"),
        ("{HH\nAH0}", "hh ahzero"),
        ("a {HH} b\nc {L}", "a {HH} b"),
        ("a\n{HH} b", "a hh b"),
        ("1{HH}st", "one{HH}st"),
    ],
)
def test_braces(text, expected):
    """What the reference makes of them, sense or not."""
    assert spoken(text) == expected


def test_cleaners_are_applied_in_their_order():
    assert spoken("A É", []) == "A "
    assert spoken("A É", ["basic_cleaners"]) == "a "
    assert spoken("A É 1", ["transliteration_cleaners"]) == "a e "
    assert spoken("Ａ１", ["basic_cleaners", "english_cleaners"]) == "aone"


@pytest.mark.parametrize("text", ["", "a", "{HH}"])
def test_an_unknown_cleaner_is_refused(text):
    with pytest.raises(UserError, match=r"'french_cleaners'; choose from english_cleaners, .*, basic_cleaners$"):
        text_to_sequence(text, ["basic_cleaners", "french_cleaners"])


@pytest.mark.parametrize(
    "piece",
    [
        "The fox. ",
        "{",
        "}",
        "{}",
        "{HH AH0}",
        "1",
        "1,",
        "1.",
        "1st",
        "$",
        "$.",
        "$1.2.3 ",
        "Dr.",
        " ",
        "a'",
        "你",
        "\0",
    ],
)
def test_long_texts_take_linear_time(piece):
    text_to_sequence("1", ENGLISH)  # inflect is loaded
    began = time.process_time()  # which other programs do not lengthen
    text_to_sequence(piece * (100_000 // len(piece)), ENGLISH)
    assert time.process_time() - began < 10  # at most 0.3 s; quadratic time is minutes


def test_without_numbers_inflect_is_not_loaded():
    program = "import sys; from tacotron2.text import text_to_sequence as ids; ids('Dr. No', ['english_cleaners'])"
    subprocess.run([sys.executable, "-c", f"{program}; assert 'inflect' not in sys.modules"], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "text", ["Dr. Smith paid $5.", "“It’s {HH AH0}”, she said.", "\ufeffA café", "two\nlines", "{HH}\n \t\n"]
)
def test_nothing_is_remarked_where_nothing_is_lost(text):
    assert remarks(text, ENGLISH) == []


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("Hi 😀 & co \0", r"^left out: '\\x00', '&', '😀'$"),
        ("$5 and $", r"^left out: '\$'$"),
        ("caf\udce9", r"^left out: '\\udce9'$"),
        ("Мир, мир", r"^transliterated: 'М' as 'm', 'и' as 'i', 'м' as 'm', 'р' as 'r'$"),
        ("你", "^transliterated: '你' as 'ni '$"),
        ("£5", "^transliterated: '£' as 'ps'$"),
        ("абвгдежзиклмн", "and 3 more$"),
        ("a {XX1 HH xx1 XX1}", "^left out, no phones .*: 'XX1', 'xx1'$"),
        ("a {HH AH0", "^a brace stands alone"),
        ("a {}", "^a brace stands alone"),
        ("a { }", "^a brace stands alone"),
        ("a\n{HH}", "^a brace stands alone"),
        ("a {HH}\nb", "^left out: all below the first line"),
    ],
)
def test_what_is_lost_is_said(text, remark):
    (line,) = remarks(text, ENGLISH)
    assert re.search(remark, line)
    line.encode()  # can be printed
    assert "\n" not in line


def test_basic_cleaners_lose_digits_and_scripts():
    assert remarks("a 1 Ж", ["basic_cleaners"]) == ["left out: '1', 'Ж'"]


@pytest.mark.parametrize("text", ["", " ", "...", "😀", "_", "{XX}"])
def test_a_text_without_sound_is_said(text):
    assert remarks(text, ENGLISH)[-1] == "nothing is left to speak"
