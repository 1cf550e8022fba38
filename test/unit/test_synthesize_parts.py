"""tools/synthesize.py: lines and clips, what is counted of them, and what its parts pass on."""

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from command_lines import read

from common.audio import LOUDEST
from common.program import UserError
from conftest import RATE
from tacotron2.sentences import Piece
from tools import synthesize
from tools.synthesize import Total, Wav, find_lines, is_wav, names_no_folder, plan, prepare, speak


@pytest.mark.parametrize("output", ["out.wav", "out.WAV", "folder", "folder.d", "a.flac/", "a.b"])
def test_an_output_is_a_wav_or_a_folder(monkeypatch, output):
    if output.endswith("/"):
        output += "b"
    args = read(monkeypatch, synthesize, "--tacotron2=t", "-o", output, "Hi.", "there")
    assert (args.output, args.text, args.device, args.dictionary) == (output, ["Hi.", "there"], "auto", None)


@pytest.mark.parametrize("output", ["out.flac", "out.OGG", "out.mp3", "out.aiff"])
def test_another_kind_of_audio_is_refused(monkeypatch, capsys, output):
    with pytest.raises(SystemExit) as end:
        read(monkeypatch, synthesize, "--tacotron2=t", "-o", output, "Hi.")
    assert end.value.code == 2
    assert f"-o is {output}, must be a name that ends in .wav, or a folder" in capsys.readouterr().err


def test_one_wav_or_a_folder_of_them(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    assert is_wav(tmp_path / "a.wav") and is_wav(tmp_path / "A.WAV") and is_wav(Path("/dev/null"))
    assert not is_wav(tmp_path / "folder.wav") and not is_wav(tmp_path / "a") and not is_wav(tmp_path / "a.wav.d")


def test_folders_are_made_where_they_are_needed_and_can_be(tmp_path):
    prepare(tmp_path / "a/b/c.wav")
    assert (tmp_path / "a/b").is_dir() and not (tmp_path / "a/b/c.wav").exists()
    prepare(tmp_path / "d/clips")
    assert (tmp_path / "d/clips").is_dir()
    prepare(Path("/dev/null"))
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file/clips", tmp_path / "file/out.wav"):
        with pytest.raises(UserError, match="cannot write to"):
            prepare(output)


# ---- the text ----


def test_lines_are_numbered_as_they_stand_over_all_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.TXT").write_text("One.\n\n  Three. \n")
    (tmp_path / "file").write_text("Of a file.")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\ufeffRead.\n\nToo.".encode()), isatty=lambda: False)
    )
    assert find_lines(["lines.TXT", "file", "folder", " \n A word. ", "-"]) == {
        1: "One.", 3: "Three.", 4: "Of a file.", 5: "folder", 7: "A word.", 8: "Read.", 10: "Too.",
    }  # fmt: skip


def test_a_word_may_be_the_name_of_a_folder_or_too_long_for_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert names_no_folder("file")
    assert not any(map(names_no_folder, ("folder", "nothing", "a" * 5000, "a\0b", "")))


def test_who_types_is_told_how_it_ends(monkeypatch, caplog):
    caplog.set_level("INFO")
    for is_terminal in (True, False):
        caplog.clear()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"Hi."), isatty=lambda t=is_terminal: t))
        assert find_lines([]) == {1: "Hi."}
        assert caplog.messages == ["reading the text from the terminal; Ctrl-D on an empty line ends it"] * is_terminal
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\xe9b"), isatty=lambda: False))
    with pytest.raises(UserError, match=r"^standard input is not UTF-8 text: byte 1 is 0xe9$"):
        find_lines([])


# ---- the clips ----


def piece(text, pause):
    return Piece(text=text, ids=[1], pause=pause)


class Speaks:
    """Stands in for a synthesizer: pieces are words, and "x" cannot be spoken."""

    cleaners, alphabet, dictionary = ["basic_cleaners"], "ab", {"a": ["@AH"]}
    config = SimpleNamespace(data_config=SimpleNamespace(sampling_rate=RATE))

    def __init__(self, *flaws):
        self.flaws, self.given = flaws, None

    def take_apart(self, line):
        return [piece(word, 0.5) for word in line.split() if word != "x"]

    def speak_pieces(self, pieces, seed):
        self.given = [each.text for each in pieces], seed
        for number, each in enumerate(pieces):
            yield SimpleNamespace(utterance=SimpleNamespace(mel=each.text), flaw=(number in self.flaws and "bad") or "")


@pytest.fixture
def no_remarks(monkeypatch):
    monkeypatch.setattr(synthesize, "remarks", lambda line, cleaners, alphabet, dictionary: [])


def test_a_folder_gets_a_clip_for_each_line_and_a_wav_gets_all(no_remarks, tmp_path):
    lines = {1: "a b", 3: "x", 12345: "c"}
    clips = plan(lines, Speaks(), tmp_path / "out")
    assert [(clip.path.name, [each.text for each in clip.pieces]) for clip in clips] == [
        ("out_0001.wav", ["a", "b"]), ("out_12345.wav", ["c"]),
    ]  # fmt: skip
    (clip,) = plan(lines, Speaks(), tmp_path / "out.wav")
    assert (clip.path, [each.text for each in clip.pieces]) == (tmp_path / "out.wav", ["a", "b", "c"])


@pytest.mark.parametrize(("lines", "more"), [(1, None), (10, None), (11, "... and 1 more such remarks")])
def test_what_the_text_loses_is_said_with_its_line_if_there_are_several(monkeypatch, tmp_path, caplog, lines, more):
    given = []
    monkeypatch.setattr(synthesize, "remarks", lambda *asked: given.append(asked) or [f"{asked[0]} is odd"])
    plan({number: f"w{number}" for number in range(1, lines + 1)}, Speaks(), tmp_path / "out.wav")
    said = ["w1 is odd"] if lines == 1 else [f"line {i}: w{i} is odd" for i in range(1, 11)]
    assert caplog.messages == said + ([more] if more else [])
    assert given[0] == ("w1", ["basic_cleaners"], "ab", {"a": ["@AH"]})


def test_a_text_of_which_nothing_is_left_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(synthesize, "remarks", lambda *asked: [f"odd {i}" for i in range(4)])
    told = "nothing of the text can be spoken, it needs letters or digits: odd 0; odd 1; odd 2"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        plan({1: "x"}, Speaks(), tmp_path / "out")


SOUNDS = {"a": [0.5] * 100, "b": [-0.75] * 200, "c": [1.0, -1.0, 0.1] * 50}


def test_pieces_are_spoken_in_their_order_and_all_is_counted(tmp_path):
    """A pause stands between two pieces, and none behind the last one of a wav."""
    synthesizer = Speaks(0, 2)
    clips = [
        Wav(tmp_path / "1.wav", [piece("a", 0.01), piece("b", 0.02), piece("c", 9)]),
        Wav(tmp_path / "2.wav", [piece("c", 9)]),
    ]
    total = speak(clips, synthesizer, lambda mel: torch.tensor(SOUNDS[mel]), seed=7)
    assert synthesizer.given == (["a", "b", "c", "c"], 7)
    pauses = [round(0.01 * RATE), round(0.02 * RATE)]
    expected = [*SOUNDS["a"], *[0] * pauses[0], *SOUNDS["b"], *[0] * pauses[1], *SOUNDS["c"]]
    for name, samples in (("1", expected), ("2", SOUNDS["c"])):
        audio, rate = soundfile.read(tmp_path / f"{name}.wav")
        assert rate == RATE
        np.testing.assert_allclose(audio, samples, atol=1 / 32768)
    assert total == Total(pytest.approx((len(expected) + 150) / RATE), peak=1.0, clipped=200, flawed=2)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_peak_is_that_of_all_pieces_and_has_no_sign(tmp_path, sign):
    """Whichever of them it is in."""
    sounds = {"a": [0.1, 0.3], "b": [0.2, sign * 0.75], "c": [-0.4, 0.4]}
    wavs = [
        Wav(tmp_path / "1.wav", [piece("a", 0.1), piece("b", 0.1)]),
        Wav(tmp_path / "2.wav", [piece("c", 0.1)]),
    ]
    total = speak(wavs, Speaks(), lambda mel: torch.tensor(sounds[mel]), seed=1)
    assert total == Total(pytest.approx((6 + round(0.1 * RATE)) / RATE), peak=0.75, clipped=0, flawed=0)
    assert LOUDEST > 1


def test_the_program_passes_its_options_on_and_sums_up(monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO")
    made, clock = {}, iter([10.0, 13.0])

    speaks = Speaks(0)
    monkeypatch.setattr(synthesize, "Synthesizer", lambda *given: made.update(synthesizer=given) or speaks)
    monkeypatch.setattr(synthesize, "remarks", lambda *_: [])
    monkeypatch.setattr(
        synthesize,
        "make_vocoder",
        lambda args, s, hints: made.update(hints=hints) or (lambda mel: torch.full((RATE * 3,), 1.0)),
    )
    monkeypatch.setattr(synthesize, "pick_device", lambda name: f"device {name}")
    monkeypatch.setattr(synthesize, "hints_for_both", lambda args: {"a": 1})
    monkeypatch.setattr(synthesize, "open_log", lambda *_, **__: None)
    monkeypatch.setattr(synthesize, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    options = ["--cleaners=basic_cleaners", "--dictionary=d", "--device=cuda", "--amp=O1", "--seed=5"]
    read(monkeypatch, synthesize, "--tacotron2=t", "a", "b", "-o", str(tmp_path / "out"), *options)
    synthesize.main()
    assert made == {"synthesizer": ("t", "device cuda", "O1", "d", {"a": 1}, ["basic_cleaners"]), "hints": {"a": 1}}
    assert speaks.given == (["a", "b"], 5)
    assert caplog.messages == [
        "1 of 2 pieces of the text are flawed, listen to those named above",
        "132,300 of 132,300 samples (100.00%) are clipped at full scale: a lower --sigma is less loud",
        f"wrote {tmp_path / 'out'}: 2 clip(s), 6.0 s of audio in 3.0 s (real-time factor 0.50), peak 1.00",
    ]
