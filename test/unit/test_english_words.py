"""Numbers, letters and years in words: both sides of every limit."""

import re

import pytest

from tacotron2.text.english.words import (
    decimal,
    digit_by_digit,
    is_attributive,
    number,
    ordinal,
    plural,
    roman,
    spell,
    to_roman,
    whole,
    year,
)

NO_NOUNS = "of in on at to or and per from for away is was a"


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "zero"),
        ("7", "seven"),
        ("00", "zero zero"),
        ("07", "zero seven"),
        ("10", "ten"),
        ("0,500", "zero five zero zero"),
        ("1,234", "one thousand, two hundred thirty-four"),
        ("1998", "one thousand, nine hundred ninety-eight"),
    ],
)
def test_whole_numbers(digits, words):
    assert whole(digits) == words


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("3", "three"),
        ("3.0", "three point zero"),
        ("3.14", "three point one four"),
        (".5", "zero point five"),
        ("2.0.1", "two point zero point one"),
        ("1,000.25", "one thousand point two five"),
        ("1998.5", "one thousand, nine hundred ninety-eight point five"),
    ],
)
def test_decimals(digits, words):
    assert decimal(digits) == words


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("1998", "nineteen ninety-eight"),
        ("1905", "nineteen oh five"),
        ("1910", "nineteen ten"),
        ("1900", "nineteen hundred"),
        ("1000", "one thousand"),
        ("1001", "ten oh one"),
        ("1999", "nineteen ninety-nine"),
        ("2000", "two thousand"),
        ("2009", "two thousand nine"),
        ("2010", "twenty ten"),
        ("2100", "twenty-one hundred"),
        ("3000", "three thousand"),
        ("9999", "ninety-nine ninety-nine"),
        ("0100", "zero one zero zero"),
        ("79", "seventy-nine"),
        ("500", "five hundred"),
        ("12345", "twelve thousand, three hundred forty-five"),
    ],
)
def test_years(digits, words):
    assert year(digits) == words


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("1000", "one thousand"),
        ("1001", "ten oh one"),
        ("2999", "twenty-nine ninety-nine"),
        ("3000", "three thousand"),
        ("3001", "three thousand one"),
        ("999", "nine hundred ninety-nine"),
        ("0123", "zero one two three"),
        ("1,998", "one thousand, nine hundred ninety-eight"),
        ("19.8", "nineteen point eight"),
        ("12345", "twelve thousand, three hundred forty-five"),
    ],
)
def test_a_number_of_four_digits_is_a_year_where_it_may_be(digits, words):
    assert number(digits) == words


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "zeroth"),
        ("001", "first"),
        ("8", "eighth"),
        ("9", "ninth"),
        ("12", "twelfth"),
        ("20", "twentieth"),
        ("35", "thirty-fifth"),
        ("1,000", "one thousandth"),
        ("1002", "one thousand second"),
    ],
)
def test_ordinals(digits, words):
    assert ordinal(digits) == words


def test_letters_and_digits_by_their_names():
    assert spell("abcdefghijklm") == "ay bee see dee ee eff gee aitch eye jay kay ell em"
    assert spell("NOPQRSTUVWXYZ") == "en oh pee cue are ess tee you vee double-you ex why zee"
    assert spell("A-1.é²٣") == "ay one"
    assert digit_by_digit("(012) 345-6789x²٣") == "zero one two three four five six seven eight nine"


def test_plurals():
    assert [plural(word) for word in ("nineteen ninety", "yard", "day off")] == [
        "nineteen nineties", "yards", "day offs",
    ]  # fmt: skip


def test_roman_numerals_are_additive_and_subtractive():
    numerals = "I II III IV V VI IX X XIV XIX XL XLIX L XC XCIX C CXLIV CCC"
    assert [roman(numeral) for numeral in numerals.split()] == [
        1, 2, 3, 4, 5, 6, 9, 10, 14, 19, 40, 49, 50, 90, 99, 100, 144, 300,
    ]  # fmt: skip
    assert [to_roman(value) for value in (0, 4, 9, 40, 49, 90, 99, 144)] == [
        "", "IV", "IX", "XL", "XLIX", "XC", "XCIX", "CXLIV",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "is_so"),
    [
        ("a 5m b", True),
        ("A 5m rope", True),
        ("an 5m rope", True),
        ("it is a 5m-rope", True),
        ("data 5m rope", False),
        ("the 5m rope", False),
        ("a  5m rope", False),
        ("a 5m Rope", False),
        ("a 5m, rope", False),
        ("a 5m", False),
        *((f"a 5m {word} it", False) for word in NO_NOUNS.split()),
        ("a 5m often", True),
    ],
)
def test_a_measure_stands_before_a_noun(written, is_so):
    assert is_attributive(re.search("5m", written)) == is_so
