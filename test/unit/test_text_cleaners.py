"""Numbers, abbreviations and other scripts are read as the reference reads them."""

import random
import re
import tracemalloc
import warnings

import inflect
import pytest

from tacotron2.text.cleaners import clean
from tacotron2.text.numbers import cardinal


def english(text):
    return clean(text, ["english_cleaners"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "zero"),
        ("007", "seven"),
        ("105", "one hundred five"),
        ("1000", "one thousand"),
        ("1001", "ten oh one"),
        ("1100", "eleven hundred"),
        ("1905", "nineteen oh five"),
        ("1999", "nineteen ninety-nine"),
        ("2000", "two thousand"),
        ("2001", "two thousand one"),
        ("2009", "two thousand nine"),
        ("2010", "twenty ten"),
        ("2100", "twenty-one hundred"),
        ("2999", "twenty-nine ninety-nine"),
        ("3000", "three thousand"),
        ("01905", "nineteen oh five"),
        ("1,905", "nineteen oh five"),
        ("12345", "twelve thousand, three hundred forty-five"),
        ("1,234,567", "one million, two hundred thirty-four thousand, five hundred sixty-seven"),
        ("1,2", "twelve"),
        ("1, 2", "one, two"),
        ("3.14", "three point fourteen"),
        ("1.2.3", "one point two.three"),
        ("1st", "first"),
        ("22ND", "twenty-second"),
        ("1,234,567th", "one million, two hundred and thirty-four thousand, five hundred and sixty-seventh"),
        ("1990s", "nineteen ninetys"),
        ("$1", "one dollar"),
        ("$0.01", "one cent"),
        ("$.50", "fifty cents"),
        ("$1.5", "one dollar, five cents"),
        ("$1,000.50", "one thousand dollars, fifty cents"),
        ("$1905", "nineteen oh five dollars"),
        ("$0.00", "zero dollars"),
        ("$1.2.3", "one point two.three dollars"),
        ("$ 5", "$ five"),
        ("£20", "pstwenty"),
        ("7:05", "seven:five"),
        ("-4", "-four"),
        ("²", "two"),
    ],
)
def test_numbers(text, expected):
    assert english(text) == expected


def test_digits_in_words_leave_no_digit():
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choice("0123456789,.$sthnrd £") for _ in range(rng.randrange(1, 20)))
        assert not any(c.isdigit() for c in english(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9" * 36, "nine hundred ninety-nine decillion, "),
        ("0" * 50 + "7", "seven"),
        ("1" + "0" * 36, "one zero zero "),
        ("$" + "2" * 5000, "two two two "),
        ("$,5", "five dollars"),
        ("$1,.5", "one dollar, five cents"),
    ],
)
def test_numbers_the_reference_cannot_read(text, expected):
    assert english(text).startswith(expected)


def test_a_long_ordinal_ends_as_one():
    assert english("1" * 40 + "2nd") == "one " * 40 + "second"
    assert english("1" + "0" * 35 + "th") == "one hundred decillionth"
    assert english("1" + "0" * 35 + "1st") == "one " + "zero " * 35 + "first"


def test_cardinals_are_inflects():
    """Put together of groups of three digits, which is quicker, they are word for word the reference's."""
    rng, engine = random.Random(0), inflect.engine()
    for length in range(1, 37):
        for number in (rng.randrange(10 ** (length - 1), 10**length), 10 ** (length - 1) + rng.randrange(130)):
            assert cardinal(str(number)) == engine.number_to_words(str(number), andword="")
    for thousands in (1, 12, 120, 1000):
        for rest in (0, 1, 99, 100, 101, 999):
            number = str(1000 * thousands + rest)
            assert cardinal(number) == engine.number_to_words(number, andword="")


@pytest.mark.parametrize("form", ["{}", "${} ", "{}th"])
def test_numbers_without_end_leave_nothing_in_memory(form):
    """What is remembered of numbers does not grow with them: these would be several times the limit."""
    english("1st $2 345")  # inflect is loaded
    tracemalloc.start()
    for number in range(60):
        english(form.format(f"{number}{'7' * 5000}"))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 300_000


def test_abbreviations():
    abbreviated = "Mrs. Mr. Dr. St. Co. Jr. Maj. Gen. Drs. Rev. Lt. Hon. Sgt. Capt. Esq. Ltd. Col. Ft."
    assert english(abbreviated) == (
        "misess mister doctor saint company junior major general doctors reverend lieutenant honorable sergeant"
        " captain esquire limited colonel fort"
    )
    for other in (abbreviated.replace(".", ""), re.sub(r"\b(?=\w)", "x", abbreviated)):
        assert english(other) == other.lower()


def test_abbreviations_are_expanded_one_after_the_other():
    assert english("St.Co. Co.St.") == "saintco. companysaint"


def test_other_scripts_become_latin():
    assert english("Café Привет 你好 “x” … —") == 'cafe privet ni hao "x" ... --'
    assert clean("Привет", ["basic_cleaners"]) == "привет"


def test_white_space_becomes_one_space():
    assert english("\ta \r\n\x0b\u2003\xa0b ") == " a b "


def test_bytes_that_were_no_text_make_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert english("caf\udce9 \ud83d") == "caf "
