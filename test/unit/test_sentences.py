"""Taking text apart: where sentences end, where long ones are cut, nothing lost, nothing too long."""

import random

import pytest

from common.program import UserError
from tacotron2.sentences import (
    CUT_PAUSE,
    PARAGRAPH_PAUSE,
    SENTENCE_PAUSE,
    STRETCH,
    sentences,
    stretches,
    take_apart,
)
from tacotron2.text import text_to_sequence
from tacotron2.text.braces import split_braces


def read(text):
    return text_to_sequence(text, ["english_cleaners"])


def symbols(text):
    return len(read(text))


@pytest.mark.parametrize(
    "text",
    [
        "One.|Two!|Three?|Four",
        "Dr. Smith met Mrs. J. R. Brown on St. James St. Tuesday.|He left.",
        "It costs $3.50, or 3.5 pounds.|Pay 1,000.50 now.",
        "He waited... and left.|Well...|Then he came.|Yes…|No.",
        '"Stop!" he said.|"Why?"|Nobody knew.|(Really.)|“Go.”|She went.',
        "See Fig. 3 and No. 5, Vol. 2.|No.|I won't.",
        "They met at 5 p.m. and left at 6 p.m.|The U.S. Army, e.g. Col. Blake, was there.|So do I.|He is.",
        "Turn left on {HH AW1 . S T} street.|{AH0 . ! ?} is next.|Go to {A}.|{B} it is.",
        "all in lower case.|it still ends.|does it not?|mr. smith says so.",
        "ALL CAPITALS.|THEY END.",
        "你好。|再见！|谢谢.|好",
        "Wait.    |   There are blanks.",
        "What?!|Really?!?|Yes.",
        "An e-mail to a.b@c.org.|A page at www.a.org/x.html is there.",
        "On Jan. 5 it began.|In Jan.|It ended.",
    ],
)
def test_where_sentences_end(text):
    assert [part.strip() for part in text.split("|")] == sentences(text.replace("|", " "))


def test_what_fits_is_spoken_in_one_go():
    """Also where less of it can be spoken than of its neighbours."""
    halves = "abcde abcde abcde abcde", "- - a - - a - - a - - a"
    pieces = take_apart(" ".join(halves), lambda part: [character for character in part if character.isalpha()], 10)
    assert [piece.text for piece in pieces] == ["abcde abcde", "abcde abcde", halves[1]]


def test_pauses():
    long = "one, two, three, " * 4 + "four."
    pieces = take_apart(f"First. Second.\n\n  {long}\r\nLast", read, 40)
    parts = [piece.text for piece in pieces[2:-1]]
    assert [piece.text for piece in pieces[:2]] == ["First.", "Second."]
    assert pieces[-1].text == "Last"
    assert " ".join(parts) == long
    pauses = [SENTENCE_PAUSE, PARAGRAPH_PAUSE, *[CUT_PAUSE] * (len(parts) - 1), PARAGRAPH_PAUSE, PARAGRAPH_PAUSE]
    assert [piece.pause for piece in pieces] == pauses
    assert CUT_PAUSE < SENTENCE_PAUSE < PARAGRAPH_PAUSE


def test_long_sentences_are_cut_at_clauses_then_at_blanks():
    clauses = "the first part of the sentence is this, and the second part of it follows here; that is all there is"
    parts = [piece.text for piece in take_apart(clauses, read, 70)]
    assert parts == [
        "the first part of the sentence is this,",
        "and the second part of it follows here; that is all there is",
    ]
    words = {piece.text for piece in take_apart("word " * 30, read, 20)}
    assert words <= {"word word", "word word word", "word word word word"}


ALPHABET = [
    *"abcXYZ019", *"....,,;:!?", *'"\'()[]-—…“”’{}$%&', "  ", " ", " ", " ", "\n", "\r\n", "\t", "\0",
    "\ufeff", "é", "你", "。", "Я", "Dr.", "e.g.", "No.", "1234567890123", "{HH AH0 L OW1}", "{X}", "{ S T AO1 . R }",
    "Word", "another", "and", "The",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(150))
def test_nothing_is_lost_and_nothing_too_long(seed):
    """Texts of random pieces, from tame to wild."""
    rng = random.Random(seed)
    text = "".join(rng.choice(ALPHABET) + rng.choice(["", " "]) for _ in range(rng.randrange(300)))
    limit = rng.choice([30, 60, 150])
    pieces = take_apart(text, read, limit)
    assert "".join("".join(piece.text.split()) for piece in pieces) == "".join(text.split())
    assert all(piece.text == piece.text.strip() != "" for piece in pieces)
    assert all(piece.ids == read(piece.text) and len(piece.ids) <= limit for piece in pieces)
    assert all("\n" not in piece.text for piece in pieces)
    phones = [part for line in text.splitlines() for part, in_braces in split_braces(line) if in_braces]
    kept = [part for piece in pieces for part, in_braces in split_braces(piece.text) if in_braces]
    assert kept == phones


@pytest.mark.parametrize("count", [1, 2, 5, 60])
def test_sentences_of_a_book(count):
    """Ordinary sentences come out as they went in, whichever stand together."""
    known = ["It was late.", "Mr. Brown had left at 5 p.m. with Dr. J. Smith.", '"Why?" she asked.', "He paid $3.50!"]
    chosen = [random.Random(count).choice(known) for _ in range(count)]
    assert [piece.text for piece in take_apart(" ".join(chosen), read, 150)] == chosen


def test_too_many_phones_in_one_pair_of_braces():
    with pytest.raises(UserError, match=r"in one pair of braces, use several pairs: {HH AH0"):
        take_apart("Say {" + "HH AH0 " * 40 + "}", read, 50)


@pytest.mark.parametrize("unit", ["a", ".", ",'", "{", "}{", "{A} ", "9", "$1 ", "a, ", '." ', "\0"])
def test_the_work_grows_as_the_length(unit):
    def work(length: int) -> int:
        """Characters that were looked at to cut a text of this length, which is all there again."""
        looked_at = []
        text = unit * (length // len(unit))
        pieces = take_apart(text, lambda part: looked_at.append(len(part)) or read(part), 150)
        assert sum(len("".join(piece.text.split())) for piece in pieces) == len("".join(text.split()))
        return sum(looked_at)

    assert work(64_000) < 8.2 * work(8_000)  # halved again and again, the whole text would cost 11 times as much


def test_what_is_too_long_to_be_halved_loses_nothing():
    """Blanks, braces that are longer than a stretch, words: put together, the pieces are the text."""
    long_braces = "{" + "XX " * 1500 + "}"  # no phones
    text = f"{'word, ' * 900}{' ' * 5000}{long_braces}{'x' * 5000} {{HH AH0 L OW1}} {'and ' * 900}end."
    pieces = [piece.text for piece in take_apart(text, read, 150)]
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece.strip() == piece != "" for piece in pieces)
    assert all(symbols(piece) <= 150 for piece in pieces)
    assert any(long_braces in piece for piece in pieces)
    assert any("{HH AH0 L OW1}" in piece for piece in pieces)


def cuts(text, limit):
    return [piece.text for piece in take_apart(text, list, limit)]


@pytest.mark.parametrize(
    "end", [",", ";", ":", "!", "?", "…", ")", "]", ',"', ";”", " —", " –", " --", "，", "、", "；", "："]
)
def test_behind_which_clauses_a_sentence_is_cut(end):
    """Not between the words that are nearer to the middle, where it is cut without any."""
    blank = "" if end in "，、；：" else " "
    assert cuts(f"One two{end}{blank}three four five six", 22) == [f"One two{end}", "three four five six"]
    assert cuts("One two three four five six", 22) == ["One two three", "four five six"]


def test_the_clause_nearest_to_the_middle_is_taken():
    assert cuts("aaaa, aaaa, aaaa, bbbb, bbbb, bbbb", 18) == ["aaaa, aaaa, aaaa,", "bbbb, bbbb, bbbb"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("aa, bb bb bb bb", ["aa,", "bb bb bb bb"]),  # just behind the first quarter
        ("bb bb bb bb, aa aa", ["bb bb bb bb,", "aa aa"]),  # just before the last
        ("aa, bb bb bb bb bb", ["aa, bb bb", "bb bb bb"]),
        ("bb bb bb bb bb, aa aa", ["bb bb bb", "bb bb, aa aa"]),
    ],
)
def test_clauses_near_an_end_are_not_cut_off(text, parts):
    assert cuts(text, len(text) - 1) == parts


def test_without_blanks_it_is_cut_between_characters_but_not_in_braces():
    assert cuts("abcdefgh", 4) == ["abcd", "efgh"]
    assert cuts("abcd{E F G}", 10) == ["abcd", "{E F G}"]
    assert cuts("{A B C}{D E F G H}", 12) == ["{A B C}", "{D E F G H}"]


def test_a_long_text_is_not_read_anew_for_each_halving():
    read = []
    text = "1234567890" * 190
    pieces = take_apart(text, lambda part: read.append(part) or list(range(5 * len(part))), 150)
    assert "".join(piece.text for piece in pieces) == text and max(len(piece.ids) for piece in pieces) <= 150
    assert sum(map(len, read)) <= 4 * len(text)


def ends(text):
    return len(sentences(text))


@pytest.mark.parametrize("closing", ["", *"\"'”’»)]", '")'])
@pytest.mark.parametrize("end", [*".!?…؟۔।", "?!", "..."])
def test_every_sign_at_which_a_sentence_ends_before_a_blank(end, closing):
    first = f"One{end}{closing}"
    assert sentences(f"{first} Two.") == [first, "Two."]
    assert sentences(f"{first}Two.") == [f"{first}Two."]


@pytest.mark.parametrize("closing", ["", *"」』”", "」』"])
@pytest.mark.parametrize("end", [*"。！？", "！？"])
def test_every_sign_at_which_a_sentence_ends_without_a_blank(end, closing):
    first = f"One{end}{closing}"
    assert sentences(f"{first}Two.") == sentences(f"{first} Two.") == [first, "Two."]


@pytest.mark.parametrize(
    "words",
    [
        "mr mrs ms messrs dr drs prof st rev fr gen col maj capt lt sgt hon pres gov sen rep mt ft vs cf viz approx",
        " ".join("ABCDEFGHJKLMNOPQRSTUVWXYZ"),
        "U.S e.g i.e Ph.D D.C",
    ],
)
def test_after_which_full_stops_a_sentence_goes_on(words):
    for word in words.split():
        for written in (word, word.capitalize() if word.islower() else word, f'"{word}', f"({word}"):
            assert ends(f"We met {written}. Smith there. He left.") == 2, written


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "nos",
        "fig",
        "figs",
        "vol",
        "vols",
        "ch",
        "p",
        "pp",
        "sec",
        "art",
        "op",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
    ],
)
def test_after_which_a_number_goes_on(word):
    assert ends(f"It is {word}. 5 of them. He left.") == 2
    assert ends(f"It is {word}. Five of them. He left.") == 3


@pytest.mark.parametrize("word", ["I", "a.m", "P.M", "A.D", "b.c", "then", "2", "extraordinarily", "unmr", "x" * 40])
def test_after_which_a_capital_begins_a_sentence(word):
    assert ends(f"It was {word}. Smith left.") == 2
    assert ends(f"It was {word}. of them") == 1  # a small letter never does


def test_how_long_pauses_are():
    """Seconds: within a sentence one hardly hears it, a paragraph's is about a breath."""
    assert (CUT_PAUSE, SENTENCE_PAUSE, PARAGRAPH_PAUSE) == (0.1, 0.3, 0.6)


def test_stretches_are_as_long_as_they_may_be():
    """Each goes to the last blank, so that no word is cut and no piece is short for want of a reason."""
    text = "a few words " * 2000
    *full, _ = stretches(text)
    assert len(full) >= 3 and all(STRETCH - 6 <= len(stretch) <= STRETCH for stretch in full)
    assert " ".join(stretches(text)) == text.strip()
