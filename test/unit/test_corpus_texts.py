"""Texts of a corpus: written out as they are spoken, and some of them held back."""

import pytest

from tacotron2.text.cleaners import clean
from tacotron2.text.remarks import remarks
from tools.corpus.texts import find_texts, normalize


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("The 22ND of May, 1905", "The twenty-second of May, nineteen oh five"),
        ("Dr. Hill and dr. Low", "Doctor Hill and doctor Low"),
        ("Mrs. Hill", "Mrs. Hill"),
        ("£1,200, €3 & $4.50", "twelve hundred pounds, three euros and four dollars, fifty cents"),
        ("5%, 10 °C, #7", "five percent, ten degrees C, number seven"),
        ("[x] {HH AH} a|b_c*d", "(x) HH AH a b c d"),
        (" “Café”…\tnow ", '"Cafe"... now'),
        ("*** 'tis", "'tis"),
        ("♪ |", ""),
        ("(a ) , b !  c ;d", "(a), b! c;d"),
        ("a+b = c @ d&e", "a plus b equals c at d and e"),
        ("£1.5 or €3.50", "one point five pounds or three point fifty euros"),
        ("10€, € 20, 30 £ or in €.", "ten euros, twenty euros, thirty pounds or in euros."),
    ],
)
def test_texts_are_written_as_they_are_spoken(text, spoken):
    assert normalize(text) == spoken
    if spoken:
        # What the model will learn from is what the engine has read: nothing is left to expand, or left out.
        assert clean(spoken.replace("Mrs.", ""), ["english_cleaners"]) == spoken.replace("Mrs.", "").lower()
        assert not remarks(spoken, ["english_cleaners"])


def test_the_held_back_sentences_are_in_no_other_corpus():
    training, held_back = find_texts(None, held_back=False), find_texts(None, held_back=True)
    assert list(held_back) == list(range(13_001, 13_101))
    assert not set(held_back.values()) & set(training.values())
    assert len(training) > 12_900
    assert list(training)[:100] == list(range(1, 101))
