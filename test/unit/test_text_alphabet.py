"""What a list of symbols means: ids, what stands in braces, what can be spoken."""

import pytest

from tacotron2.config import DataConfig
from tacotron2.data import Clip, Utterances, count_samples_and_symbols, dictionary_of
from tacotron2.text import sequence_to_text, text_to_sequence
from tacotron2.text.alphabet import NVIDIAS, Alphabet
from tacotron2.text.symbols import SYMBOLS

OWN = ["_", " ", "a", "ä", "1", ".", "tʃ", "@HH", "@", "_"]


def test_only_the_padding_in_the_first_place_cannot_be_written():
    assert Alphabet(OWN).ids == {" ": 1, "a": 2, "ä": 3, "1": 4, ".": 5, "tʃ": 6, "@HH": 7, "@": 8, "_": 9}
    assert Alphabet(["a", "_"]).ids == {"a": 0, "_": 1}
    assert Alphabet(["_", "a"]).ids == {"a": 1}


def test_what_may_stand_in_braces():
    """Any symbol by its name; those with an @ without it. Of NVIDIA's, ARPAbet alone."""
    alphabet = Alphabet(OWN)
    assert alphabet.phones == {symbol: symbol for symbol in alphabet.ids} | {"HH": "@HH"}
    assert NVIDIAS.phones == {symbol[1:]: symbol for symbol in SYMBOLS if len(symbol) > 1}
    assert Alphabet(["_", "HH", "@HH"]).phones["HH"] == "@HH"


def test_ids_come_back_as_text():
    assert sequence_to_text([2, 6, 7, 6, 3, 99, -1, 8], Alphabet(OWN)) == "a{tʃ HH tʃ}ä@"


@pytest.mark.parametrize(
    ("ids", "letter", "sound"),
    [([], False, False), ([1, 5], False, False), ([5, 4], False, True), ([5, 2], True, True)],
)
def test_a_letter_and_what_has_a_sound(ids, letter, sound):
    alphabet = Alphabet(OWN)
    assert (alphabet.has_letter(ids), alphabet.can_speak(ids)) == (letter, sound)


def test_an_example_is_made_of_the_list():
    letters = [chr(ord("a") + i) for i in range(26)]
    assert Alphabet(["_", "1", "@HH", *letters]).example() == "".join(letters[:20])
    assert Alphabet(["_", "a", "ab", "."]).example() == "a"
    phones = [f"@P{i}" for i in range(30)]
    only_phones = Alphabet(["_", ".", *phones])
    for alphabet in (only_phones, Alphabet(["_", "1", "2"])):
        ids = text_to_sequence(alphabet.example(), ["basic_cleaners"], None, alphabet)
        assert 2 <= len(ids) <= 20


def test_a_corpus_is_read_by_the_symbols_and_the_dictionary_of_the_configuration(corpus, tmp_path, caplog):
    """In what is counted, in what is remarked, and in what the model gets."""
    (tmp_path / "words.dict").write_text("TONE  T OW\n")
    config = DataConfig(symbols=["_", " ", ".", "ä", "T", "OW", *"tone"], dictionary=str(tmp_path / "words.dict"))
    assert dictionary_of(config) == {"tone": ["T", "OW"]} and dictionary_of(DataConfig()) is None
    clips = [Clip(corpus / f"wavs/clip0{i}.wav", text) for i, text in enumerate(("Ä tone.", "Ä tone, Б."))]
    ids = [[3, 1, 4, 5, 2], [3, 1, 4, 5, 1, 2]]
    assert count_samples_and_symbols(clips, config)[1] == list(map(len, ids))
    assert [record.message for record in caplog.records] == ["clip01.wav: left out: ',', 'Б'"]
    utterances = Utterances(clips, config, lambda path: path, on_bad_clip="stop")
    assert [utterances[i]["text"].tolist() for i in range(2)] == ids
