"""Tacotron2 learns and speaks German and Russian: the ids are right, nothing is lost."""

import shutil
import subprocess
import sys
from itertools import chain

import pytest
import soundfile

from common.config_reading import from_dict, load_config
from common.device import pick_device
from common.program import UserError
from conftest import toy_tacotron2_config, write_config
from runs import start
from tacotron2.config import Config, DataConfig, check_symbols
from tacotron2.data import count_samples_and_symbols, find_utterances
from tacotron2.synthesizer import Synthesizer
from tacotron2.text import sequence_to_text, text_to_sequence
from tacotron2.text.alphabet import LONGEST_SYMBOL, Alphabet, read_symbols
from tacotron2.text.remarks import remarks
from tools import synthesize

CPU = pick_device("cpu")
MARKS = list("_-!'(),.:;? ")
GERMAN = MARKS + list("abcdefghijklmnopqrstuvwxyzäöüß")
RUSSIAN = MARKS + list("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")
LINES = {
    "de": ["Süße Grüße!", "Über Köln.", "Ja, schön!", "Ein Fuß."],
    "ru": ["Объём, да?", "Ещё чай.", "Вот - жёлтый.", "Эта щука."],
}
ALPHABETS = {"de": GERMAN, "ru": RUSSIAN}

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")


def make_corpus(folder, language):
    """Some lines of the language, each twice, spoken by espeak-ng."""
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for i, text in enumerate(LINES[language] * 2):
        wav = folder / "wavs" / f"{i:02}.wav"
        subprocess.run(["espeak-ng", "-v", language, "-s", "450", "-w", wav, text], check=True, timeout=60)
        samples, rate = soundfile.read(wav)
        assert rate == 22050 and len(samples)
        lines.append(f"{wav.stem}|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


def speaking(symbols):
    values = toy_tacotron2_config()
    values["data_config"] = {"symbols": symbols}
    return values


def speak(monkeypatch, caplog, checkpoint, output, *arguments):
    """What tools/synthesize.py says."""
    command = ["synthesize.py", *arguments, f"--tacotron2={checkpoint}", f"--output={output}", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", command)
    caplog.clear()
    with caplog.at_level("INFO"):
        synthesize.main()
    return caplog.text


@needs_espeak
@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "ru"])
def test_a_language_from_recordings_to_speech(tmp_path, monkeypatch, caplog, language):
    corpus = make_corpus(tmp_path / "corpus", language)
    symbols = tmp_path / "symbols.txt"
    symbols.write_text("".join(f"{symbol}\n" for symbol in ALPHABETS[language]), encoding="utf-8")
    run, _ = start(
        speaking(str(symbols)), corpus, tmp_path / "out", max_steps=200, epochs=1000, batch_size=2, learning_rate=5e-3
    )
    losses = run.progress.losses
    assert len(losses) == 200 and sum(losses[-20:]) < 0.7 * sum(losses[:20])
    symbols.unlink()  # the checkpoint has them
    synthesizer = Synthesizer(tmp_path / "out/tacotron2_200", CPU)
    assert synthesizer.cleaners == ["basic_cleaners"]
    for text in LINES[language]:
        assert sequence_to_text(synthesizer.symbols(text), synthesizer.alphabet) == text.lower()
    said = speak(monkeypatch, caplog, tmp_path / "out/tacotron2_200", tmp_path / "out.wav", *LINES[language])
    assert "left out" not in said and "transliterated" not in said
    assert soundfile.info(tmp_path / "out.wav").frames > 22050


# ---- reading ----


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
def test_so_many_symbols_are_taken(count, taken):
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
        (["_", ""], "number 2 of the symbols is ''"),
        (["_", 1], "number 2 of the symbols is 1"),
    ],
)
def test_symbols_that_are_none(tmp_path, content, message):
    symbols = content if isinstance(content, list) else str(tmp_path / "s.txt")
    if isinstance(content, str):
        (tmp_path / "s.txt").write_text(content)
    with pytest.raises(UserError, match="data_config: symbols: ") as error:
        DataConfig(symbols=symbols)
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
