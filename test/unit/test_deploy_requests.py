"""What is spoken: which text, with which random numbers, in which wav, on which device."""

from dataclasses import replace

import pytest
from deploy_toys import raw

from common.program import UserError
from tacotron2.sentences import PARAGRAPH_PAUSE, SENTENCE_PAUSE
from tacotron2.text.alphabet import Alphabet
from tools.deploy.infer_python.requests import of_sentence, of_text, reader, sentence


@pytest.fixture
def contents():
    return replace(raw(), ranges={"text": [4, 128, 256], "batch": [1, 4, 16], "mel": [4, 64, 128]})


def spoken(lines, contents, folder, batch=1, devices=(0,), seed=0):
    """Device -> its batches, each clip as (text, seed, name of its wav, whether it ends that)."""
    shares = of_text(lines, contents, batch, list(devices), seed, folder)
    return {
        device: [[(clip.text, clip.seed, clip.wav.name, clip.ends) for clip in clips] for clips in batches]
        for device, batches in shares.items()
    }


def test_every_line_has_a_wav_with_its_number_and_every_piece_a_seed(contents, tmp_path):
    """Lines without anything to speak have none, and those behind them are spoken all the same."""
    lines = ["One. Two.", "", "  ", "...", "Three"]
    assert spoken(lines, contents, tmp_path, batch=2, seed=5) == {
        0: [
            [("One.", 5, "out_0001.wav", False), ("Two.", 6, "out_0001.wav", True)],
            [("Three.", 7, "out_0005.wav", True)],
        ]
    }
    shares = of_text(lines, contents, 2, [0], 5, tmp_path)
    assert {clip.wav.parent for clip in shares[0][0]} == {tmp_path}


def test_the_silence_behind_a_piece_is_that_of_the_text(contents, tmp_path):
    (batches,) = of_text(["One. Two."], contents, 4, [0], 0, tmp_path).values()
    assert [clip.pause for clip in batches[0]] == [SENTENCE_PAUSE, PARAGRAPH_PAUSE]


def test_a_line_ends_with_the_last_piece_that_can_be_spoken(contents, tmp_path):
    assert spoken(['One. "..."'], contents, tmp_path) == {0: [[("One.", 0, "out_0001.wav", True)]]}


def test_what_is_lost_is_said_with_the_number_of_its_line(contents, tmp_path, caplog):
    of_text(["One.", "", "Hello 漢."], contents, 1, [0], 0, tmp_path)
    assert [record.getMessage() for record in caplog.records] == ["line 3: transliterated: '漢' as 'han '"]


def test_letters_are_not_lost_in_words_that_the_dictionary_speaks(contents, tmp_path, caplog):
    (tmp_path / "own.dict").write_text("hello HH\n")
    own = dict(symbols=["_", " ", "@HH"], dictionary=str(tmp_path / "own.dict"), text_cleaners=["basic_cleaners"])
    data = replace(contents.tacotron2.data_config, **own)
    of_text(
        ["Hello", "Hello Hi"],
        replace(contents, tacotron2=replace(contents.tacotron2, data_config=data)),
        1,
        [0],
        0,
        tmp_path,
    )
    assert [record.getMessage() for record in caplog.records] == ["line 2: left out: 'H', 'i'"]


def test_lines_are_dealt_to_devices_and_stay_whole(contents, tmp_path):
    """The pieces of a line are on one device, in their order, since they are one wav; batches are full but the last."""
    lines = ["A one. A two.", "Bee.", "Cee.", "Dee.", "Ee. Ef. Gee."]
    shares = spoken(lines, contents, tmp_path, batch=2, devices=(3, 1))
    texts = {device: [[clip[0] for clip in clips] for clips in batches] for device, batches in shares.items()}
    assert texts == {3: [["A one.", "A two."], ["Cee.", "Ee."], ["Ef.", "Gee."]], 1: [["Bee.", "Dee."]]}
    assert list(spoken(lines[1:3], contents, tmp_path, devices=(5, 6, 7))) == [5, 6]  # no device without work


def test_a_piece_is_as_long_as_the_engines_take_with_its_full_stop(contents, tmp_path):
    """Which a piece without an end gets."""
    exact = "one two three"
    for largest, pieces in ((len(exact), 2), (len(exact) + 1, 1)):
        contents.ranges["text"] = [4, 8, largest]
        (batches,) = of_text([exact], contents, 1, [0], 0, tmp_path).values()
        assert len(batches) == pieces
        assert all(len(reader(contents)(clip.text)) <= largest for (clip,) in batches)


@pytest.mark.parametrize("lines", [["", "..."], ["...", "--"], [], ["ъ"]])
def test_a_text_without_anything_to_speak_is_refused(contents, tmp_path, lines):
    with pytest.raises(UserError, match="nothing of the text can be spoken, it needs letters or digits"):
        of_text(lines, contents, 1, [0], 0, tmp_path)


def test_the_sentence_is_dealt_to_devices_in_turn_with_a_seed_for_each_clip(tmp_path):
    shares = of_sentence(20, 2, 3, [4, 2], 100, tmp_path)
    told = {
        device: [[(clip.seed, clip.wav.name, clip.pause, clip.ends) for clip in clips] for clips in batches]
        for device, batches in shares.items()
    }
    assert told == {
        4: [
            [(100, "dev4_0.wav", 0.0, True), (101, "dev4_1.wav", 0.0, True)],
            [(104, "dev4_0.wav", 0.0, True), (105, "dev4_1.wav", 0.0, True)],
        ],
        2: [[(102, "dev2_0.wav", 0.0, True), (103, "dev2_1.wav", 0.0, True)]],
    }
    assert {clip.text for batches in shares.values() for clips in batches for clip in clips} == {sentence(20)}


def test_an_alphabet_without_the_letters_of_the_sentence_gives_its_own(tmp_path):
    symbols = ["_", " ", ".", *"абвгд"]
    alphabet = Alphabet(symbols)
    text = sentence(12, alphabet)
    assert set(text) <= set(symbols) and len(text) == 12 and text.endswith(".")
    ((clips,),) = of_sentence(12, 1, 1, [0], 0, tmp_path, alphabet).values()
    assert clips[0].text == text
    letters = Alphabet(["_", " ", *"abcdefghijklmnopqrstuvwxyz"])  # marks may be missing
    assert sentence(20, letters).startswith("The forms of print")


def test_a_long_sentence_begins_anew_and_is_as_long_as_asked_for():
    text = sentence(333)
    assert len(text) == 333
    assert text.endswith("shapeliness of the letters themselves.")
    assert text.count("The forms of printed letters") == 2


def test_a_sentence_that_is_cut_has_an_end():
    for length in range(2, 400):
        text = sentence(length)
        assert text.endswith(".") and not text.endswith("..")
        assert length - 3 <= len(text) <= length
    assert sentence(1) == "T"
