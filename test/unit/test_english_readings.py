"""english_cleaners_v2 reads what is written as a person would; english_cleaners stays NVIDIA's."""

import json
import re

import pytest
from english import read
from toy_speech import make_checkpoint

from common.program import UserError
from common.voices import FOLDER
from conftest import ROOT
from runs import CPU
from tacotron2.synthesizer import Synthesizer
from tacotron2.text.cleaners import clean
from tacotron2.text.english import in_words
from tacotron2.text.english.words import ordinal, roman, to_roman
from tacotron2.text.numbers import expand_numbers
from tacotron2.text.remarks import remarks

LINES = (ROOT / "test/data/english_readings.tsv").read_text(encoding="utf-8").splitlines()
CASES = dict(line.split("\t") for line in LINES if not line.startswith("#"))
WRONG = {"The £5 note.", "60 W bulbs.", "Dial 911.", "Open file.txt.", "Use USB-C."}
"Those that docs/synthesis.md names."


def test_the_readings():
    assert len(CASES) == 223
    assert {written for written, expected in CASES.items() if read(written) != expected} == WRONG


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("At 10:00am.", "at ten ay em."),
        ("At 10:05PM we left.", "at ten oh five pee em we left."),
        ("10:00 a.m.", "ten ay em."),
        ("At 7.30 p.m. sharp.", "at seven thirty pee em sharp."),
        ("Open 10am-5pm.", "open ten ay em to five pee em."),
        ("9-5pm", "nine to five pee em"),
        ("10 a.m.–5 p.m. daily", "ten ay em to five pee em daily"),
        ("At 15 p.m.", "at fifteen pee em."),
        ("The a.m. and the p.m.", "the ay em and the pee em."),
    ],
)
def test_times_with_their_half_of_the_day(written, expected):
    assert read(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1/2 of it", "one half of it"),
        ("3/2", "three halves"),
        ("1/4", "one quarter"),
        ("3/4", "three quarters"),
        ("1/3", "one third"),
        ("7/12", "seven twelfths"),
        ("1/100 of it", "one hundredth of it"),
        ("3/100", "three hundredths"),
        ("1/1000", "one thousandth"),
        ("999/1000", "nine hundred ninety-nine thousandths"),
        ("2 1/2", "two and a half"),
        ("2 3/4", "two and three quarters"),
        ("2 1/100", "two and a hundredth"),
        ("3/128", "three over one hundred twenty-eight"),
        ("3/101", "three over one hundred one"),
        ("0/5", "zero over five"),
        ("3/1", "three over one"),
    ],
)
def test_fractions(written, expected):
    assert read(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1 km", "one kilometer"),
        ("2 km", "two kilometers"),
        ("1-2 km", "one to two kilometers"),
        ("0 km", "zero kilometers"),
        ("a 10 lb bag", "a ten pound bag"),
        ("a 1-2 km walk", "a one to two kilometer walk"),
        ("10 lb of it", "ten pounds of it"),
    ],
)
def test_a_unit_is_in_the_singular_for_one_alone_and_before_a_noun(written, expected):
    assert read(written) == expected


def test_the_readings_say_something_that_the_reference_does_not():
    assert sum(clean(written, "english_cleaners") == expected for written, expected in CASES.items()) == 44
    assert clean("£12 at 3:45.", "english_cleaners") == "pstwelve at three:forty-five."


@pytest.mark.parametrize("text", [*CASES, "1½ m³–5 €1.2.3 ٣ x⁴", f"{'9' * 50} km", "\uff10\uff11\uff12"])
def test_no_sign_or_digit_is_left(text):
    assert re.fullmatch(r"[a-z \-'\",.;:!?()]*", read(text))


@pytest.mark.parametrize(
    "text",
    [
        "It was a fine day; nobody knew why.",
        "Don't stop -- not now!",
        '"Yes," he said (twice).',
        "Mid-life: a well-known story?",
    ],
)
def test_plain_sentences_are_those_of_the_reference(text):
    assert read(text) == clean(text, "english_cleaners")


def test_blanks_at_the_edges_stay():
    """A piece of a text may stand beside phones in braces."""
    assert [in_words(text) for text in (" 5 km ", "5% ", " & so", " ", "")] == [
        " five kilometers ", "five percent ", " and so", " ", "",
    ]  # fmt: skip


def test_ordinals_are_those_of_the_library():
    for number in [*range(1, 130), 200, 1000, 1012, 1000000]:
        ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        assert ordinal(str(number)) == expand_numbers(f"{number}{ending}").replace(" and ", " ")


def test_roman_numerals_there_and_back():
    assert [roman(to_roman(value)) for value in range(1, 300)] == list(range(1, 300))
    assert [roman(wrong) for wrong in ("IIII", "VX", "IC", "XXL")] == [0, 0, 0, 0]


def test_a_synthesizer_reads_as_it_is_told(toy, tmp_path):
    path = make_checkpoint(tmp_path / "tacotron2_2", toy)
    assert remarks("£12 & 5°", ["english_cleaners_v2"]) == []
    texts = {}
    for cleaners in ((), ["english_cleaners_v2"]):
        synthesizer = Synthesizer(path, CPU, cleaners=cleaners)
        texts[synthesizer.cleaners[0]] = synthesizer.symbols("£12")
    assert len(texts["english_cleaners_v2"]) > len(texts["english_cleaners"])
    with pytest.raises(UserError, match="no text cleaner 'spanish'"):
        Synthesizer(path, CPU, cleaners=["spanish"])


def test_the_shipped_voice_reads_so():
    assert json.loads((FOLDER / "heart/voice.json").read_text())["text_cleaners"] == ["english_cleaners_v2"]
