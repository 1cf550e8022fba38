"""Texts of a corpus: written out as they are spoken, and some of them held back."""

import pytest

from common.program import UserError
from tacotron2.text.cleaners import clean
from tacotron2.text.remarks import remarks
from tools.corpus import texts as texts_module
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


def test_lines_keep_their_numbers_and_are_written_as_they_are_spoken(tmp_path):
    (tmp_path / "t.txt").write_text("One 1.\n\n  \nMr. Four.\n")
    assert find_texts(tmp_path / "t.txt", held_back=False) == {1: "One one.", 4: "Mister Four."}
    (tmp_path / "t.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"--texts=.*t\.txt is empty: write a sentence on each line"):
        find_texts(tmp_path / "t.txt", held_back=False)


def test_the_last_lines_of_the_bundled_list_are_held_back_and_their_sentences_with_them(tmp_path, monkeypatch):
    (tmp_path / "b.txt").write_text("Held.\nOne.\nTwo.\nHeld.\nToo.\n")
    monkeypatch.setattr(texts_module, "BUNDLED", tmp_path / "b.txt")
    monkeypatch.setattr(texts_module, "HELD_BACK", 2)
    assert find_texts(None, held_back=True) == {4: "Held.", 5: "Too."}
    assert find_texts(None, held_back=False) == {2: "One.", 3: "Two."}
    assert len(find_texts(tmp_path / "b.txt", held_back=False)) == 5
