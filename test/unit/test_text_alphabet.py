"""What a list of symbols means: how it is read, ids, what stands in braces, what can be spoken and what is left out."""

from itertools import chain

import pytest
from alphabets import GERMAN, MARKS, RUSSIAN

from common.config_reading import from_dict, load_config
from common.program import UserError
from conftest import write_config
from tacotron2.config import Config, DataConfig, check_symbols
from tacotron2.data import Clip, Utterances, count_samples_and_symbols, dictionary_of, find_utterances
from tacotron2.text import sequence_to_text, text_to_sequence
from tacotron2.text.alphabet import LONGEST_SYMBOL, NVIDIAS, Alphabet, read_symbols
from tacotron2.text.remarks import remarks
from tacotron2.text.symbols import SYMBOLS

OWN = ["_", " ", "a", "ä", "1", ".", "tʃ", "@HH", "@", "_"]


def test_only_the_padding_in_the_first_place_cannot_be_written():
    assert Alphabet(OWN).ids == {" ": 1, "a": 2, "ä": 3, "1": 4, ".": 5, "tʃ": 6, "@HH": 7, "@": 8, "_": 9}
    assert Alphabet(["a", "_"]).ids == {"a": 0, "_": 1}
    assert Alphabet(["_", "a"]).ids == {"a": 1}


def test_symbols_stand_in_braces_by_their_names():
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
def test_letters_and_what_has_a_sound_are_told_from_punctuation(ids, letter, sound):
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


def test_digits_and_signs_of_the_list_survive():
    pinyin = Alphabet([*MARKS, *"abcdefghijklmnopqrstuvwxyzü12345%"])
    ids = text_to_sequence("Ni3 hao3, lü4 100%!", ["basic_cleaners"], None, pinyin)
    assert sequence_to_text(ids, pinyin) == "ni3 hao3, lü4 1%!"
    assert remarks("Ni3 hao3, lü4 100%!", ["basic_cleaners"], pinyin) == ["left out: '0'"]


def test_decomposed_letters_are_those_of_the_list():
    for symbols, composed, decomposed in ((GERMAN, "größe", "gro\u0308ße"), (RUSSIAN, "йё", "и\u0306е\u0308")):
        for listed in (symbols, [symbol.encode().decode() for symbol in symbols]):
            alphabet = Alphabet(listed)
            ids = [text_to_sequence(text, ["basic_cleaners"], None, alphabet) for text in (composed, decomposed)]
            assert ids[0] == ids[1] and len(ids[0]) == len(composed)
    assert remarks("gro\u0308ße", ["basic_cleaners"], Alphabet(GERMAN)) == []
    assert DataConfig(symbols=["_", "o\u0308"]).symbols == ["_", "ö"]
    caron = Alphabet(["_", "ǰ"])  # of which there is no capital in one character
    assert text_to_sequence("J\u030c", ["basic_cleaners"], None, caron) == [1]


def test_symbols_of_several_characters_stand_in_braces():
    alphabet = Alphabet(["_", " ", "a", "tʃ", "@HH", "a"])
    assert text_to_sequence("a {tʃ HH a XX}", ["basic_cleaners"], None, alphabet) == [5, 1, 3, 4, 5]
    assert sequence_to_text([3, 4, 2], alphabet) == "{tʃ HH}a"
    assert remarks("a {XX}", ["basic_cleaners"], alphabet) == ["left out, no symbols of the training: 'XX'"]


@pytest.mark.parametrize(("count", "taken"), [(1, False), (2, True), (5, True), (6, False)])
def test_symbols_are_two_at_least_and_no_more_than_a_limit(count, taken):
    if taken:
        assert read_symbols(["a"] * count, 5) == ["a"] * count
    else:
        with pytest.raises(UserError, match=f"holds {count} symbols, must be 2 to 5"):
            read_symbols(["a"] * count, 5)


@pytest.mark.parametrize("symbol", ["", 7, "x" * (LONGEST_SYMBOL + 1)])
def test_what_is_no_symbol_is_named_by_its_place(symbol):
    assert read_symbols(["a", "x" * LONGEST_SYMBOL], 5)
    with pytest.raises(UserError, match=r"number 2 of the symbols is .*, which is no symbol"):
        read_symbols(["a", symbol], 5)


def test_ten_remarks_are_listed_and_the_others_counted():
    """Each once, in their order."""
    for count in (10, 11):
        phones = [f"X{number}" for number in range(count)]
        (said,) = remarks("a {" + " ".join([*phones, *phones]) + "}", ["basic_cleaners"])
        listed = ", ".join(map(repr, phones[:10])) + " and 1 more" * (count > 10)
        assert said == f"left out, no phones of ARPAbet such as HH or AH0: {listed}"


def test_cleaners_follow_the_symbols_unless_they_are_named():
    assert DataConfig().text_cleaners == ["english_cleaners"]
    assert DataConfig(symbols=GERMAN).text_cleaners == ["basic_cleaners"]
    assert DataConfig(symbols=GERMAN, text_cleaners=[]).text_cleaners == []


def test_capitals_of_another_script_are_said_too():
    assert remarks("Мир NATO.", ["basic_cleaners"], Alphabet(RUSSIAN)) == ["left out: 'A', 'N', 'O', 'T'"]


@pytest.mark.parametrize(
    ("text", "cleaners", "said"),
    [
        ("Hello мир", "basic_cleaners", []),
        ("Hello, Bob", "basic_cleaners", ["left out: ',', 'B', 'b', 'o'"]),
        ("Hello мяч", "basic_cleaners", ["left out: 'м', 'ч', 'я'"]),
        ("Hello ♪", "english_cleaners", ["left out: '♪'"]),
        ("Dr. Hello", "english_cleaners", []),
        ("Bob", "basic_cleaners", ["left out: 'B', 'b', 'o'", "nothing is left to speak"]),
    ],
)
def test_letters_are_not_lost_in_words_that_the_dictionary_speaks(text, cleaners, said):
    """With an alphabet of phones alone."""
    alphabet = Alphabet(["_", " ", "@HH"])
    dictionary = {word: ["@HH"] for word in ("hello", "мир", "doctor")}
    assert remarks(text, [cleaners], alphabet, dictionary) == said


def test_a_cleaner_that_takes_letters_of_the_list_away_is_said():
    (line,) = remarks("Süß", ["transliteration_cleaners"], Alphabet(GERMAN))
    assert "transliterated: " in line and "'ü' as 'u'" in line and "'ß' as 'ss'" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("_\na\n\nb\n", "line 3 is '', which is no symbol: write one symbol on each line"),
        ("_\n", "holds 1 symbols"),
        ("", "holds 0 symbols"),
        (None, "cannot read"),
    ],
)
def test_a_file_without_symbols_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "s.txt").write_text(content)
    with pytest.raises(UserError, match="data_config: symbols: ") as error:
        DataConfig(symbols=str(tmp_path / "s.txt"))
    assert message in str(error.value)


def test_a_file_of_symbols_may_have_other_line_ends(tmp_path):
    (tmp_path / "s.txt").write_bytes("\ufeff_\r\n \r\nё\r\n\r\n".encode())
    assert DataConfig(symbols=str(tmp_path / "s.txt")).symbols == ["_", " ", "ё"]


@pytest.mark.parametrize(("text", "kept"), [("Да.", True), ("1. 2, 3!", False), ("Only English", False)])
def test_a_clip_without_a_letter_is_an_error(corpus, text, kept):
    (corpus / "metadata.csv").write_text(f"clip00|{text}\nclip01|Нет.\n", encoding="utf-8")
    config = DataConfig(symbols=[*RUSSIAN, "1", "2", "3"])
    clips = list(chain(*find_utterances(config, str(corpus))))
    if kept:
        assert count_samples_and_symbols(clips, config)[1] == [4, 3]
    else:
        with pytest.raises(UserError, match="nothing is left to speak"):
            count_samples_and_symbols(clips, config)


def test_a_file_of_symbols_lies_beside_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "russian.txt").write_text("".join(f"{symbol}\n" for symbol in RUSSIAN), encoding="utf-8")
    config = write_config(tmp_path / "russian.json", {"data_config": {"symbols": "russian.txt"}})
    monkeypatch.chdir(tmp_path / "here")
    assert load_config(config, Config).data_config.symbols == RUSSIAN
    (tmp_path / "here/german.txt").write_text("".join(f"{symbol}\n" for symbol in GERMAN), encoding="utf-8")
    write_config(config, {"data_config": {"symbols": "german.txt"}})  # else where the program was started
    assert load_config(config, Config).data_config.symbols == GERMAN


def test_the_number_of_symbols_follows_nvidias_148(toy):
    assert from_dict(Config, toy | {"data_config": {"symbols": GERMAN}}).tacotron2_config.n_symbols == len(GERMAN)
    toy["tacotron2_config"]["n_symbols"] = 50
    config = from_dict(Config, toy | {"data_config": {"symbols": GERMAN}})
    with pytest.raises(UserError, match="it has 50 symbols, and the list of symbols has 42: do this"):
        check_symbols("it", config, "do this")
