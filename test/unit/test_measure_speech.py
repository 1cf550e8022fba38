"""tools/measure_speech.py: which clips are measured against what, what is written and what is said."""

import io
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from speech_like import voice

from common.audio import write_wav
from common.evaluation import runner
from common.log import console
from common.program import UserError
from conftest import RATE, ROOT
from tools import measure_speech
from tools.speech import figures, recognizer

TEXTS = {"a": "The quick brown fox.", "b": "It has 2 dogs, hasn't it?", "c": "Nothing more."}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(figures.os, "sched_getaffinity", lambda process: {0})


@pytest.fixture
def terminal(monkeypatch):
    """What is said there."""
    out = io.StringIO()
    monkeypatch.setattr(console, "out", out)
    return out


@pytest.fixture
def folder(tmp_path):
    """Recordings, the same as synthesized, and what is said."""
    for name, cents in zip(TEXTS, (0, 100, -100)):
        for path in (f"wavs/{name}.wav", f"synthesized/{name}_synthesis.wav"):
            write_wav(tmp_path / path, voice(0.5, cents), RATE)
    (tmp_path / "metadata.csv").write_text("".join(f"{name}|{text}\n" for name, text in TEXTS.items()))
    return tmp_path


def run(monkeypatch, folder, *options):
    """Measure the folder; measure.json."""
    output = folder / "out"
    arguments = [folder / "synthesized", *(option.format(folder) for option in options), "-o", output]
    monkeypatch.setattr(sys, "argv", ["measure_speech", *map(str, arguments)])
    monkeypatch.setattr(measure_speech, "open_log", lambda *args, **kwargs: None)
    measure_speech.main()
    return json.loads((output / "measure.json").read_text())


def synthesize(folder, name, audio):
    write_wav(folder / f"synthesized/{name}_synthesis.wav", audio, RATE)


ALL = ["--recordings={}/wavs", "--metadata={}/metadata.csv"]


def test_equal_audio_has_no_error(folder, monkeypatch):
    (folder / "synthesized/b_synthesis.wav").rename(folder / "synthesized/b.wav")
    result = run(monkeypatch, folder, *ALL)
    assert [clip["name"] for clip in result["clips"]] == list(TEXTS)
    assert (result["measured"], result["not_measured"]) == (3, {})
    for each in [*result["clips"], result["overall"], result["median"]]:
        for name in ("mel_l1", "mel_cepstral_distortion", "pitch_error", "voicing_error", "clipped"):
            assert each[name] == 0, name
        assert each["level_correlation"] == pytest.approx(1)
        assert each["duration_ratio"] == 1
        assert each["seconds"] == each["recorded_seconds"] == pytest.approx(0.5)
        assert each["peak"] == pytest.approx(0.3, abs=1e-4)
        assert each["word_error_rate"] is None
    assert not any(clip["warped"] for clip in result["clips"])


def test_all_clips_together_have_means_and_medians(folder, monkeypatch):
    synthesize(folder, "a", voice(0.5, loudness=0.6))
    synthesize(folder, "b", voice(0.5, 100, loudness=0.6))
    result = run(monkeypatch, folder, *ALL)
    assert result["overall"]["mel_l1"] == pytest.approx(2 / 3 * math.log(2), abs=3e-4)
    assert result["median"]["mel_l1"] == pytest.approx(math.log(2), abs=2e-3)
    assert result["overall"]["mel_cepstral_distortion"] < 0.05


def test_other_lengths_are_warped_and_that_is_said(folder, monkeypatch, caplog):
    caplog.set_level("INFO")
    late = np.concatenate([np.random.default_rng(1).normal(0, 1e-4, 8000).astype(np.float32), voice(0.5)])
    synthesize(folder, "a", late)
    synthesize(folder, "b", voice(0.5, 100)[:-300])
    synthesize(folder, "c", voice(0.5, -100)[:-3000])
    a, b, c = run(monkeypatch, folder, *ALL)["clips"]
    assert (a["warped"], b["warped"], c["warped"]) == (True, False, True)
    assert a["duration_ratio"] == pytest.approx(len(late) / (RATE // 2))
    assert a["near_silence"] == pytest.approx(8000 / len(late), abs=0.06)
    assert a["pitch_error"] < 15
    assert "measured 3 of 3 clips, 2 of them after dynamic time warping" in caplog.messages[-1]
    assert "3 of 3 clips, 2 of them after dynamic time warping" in (folder / "out/index.html").read_text()


def test_without_recordings_there_are_the_figures_that_need_none(folder, monkeypatch, terminal):
    synthesize(folder, "b", np.clip(9 * voice(0.5), -1, 1))
    result = run(monkeypatch, folder)
    assert result["overall"]["mel_l1"] is None
    assert result["clips"][0]["clipped"] == 0 < result["clips"][1]["clipped"] < 1
    assert result["clips"][1]["peak"] == 1
    page = (folder / "out/index.html").read_text()
    assert page.count("<audio controls") == 3
    assert "<th>clipped</th>" in page and "<th>MCD (dB)</th>" not in page
    assert "clipped" in terminal.getvalue() and "MCD" not in terminal.getvalue()


def test_the_page_has_all_that_was_measured(folder, monkeypatch):
    for module in (measure_speech, runner):
        monkeypatch.setattr(module, "CLIPS_ON_PAGE", 2)
    synthesize(folder, "c", voice(0.5, 300, seed=3))
    run(monkeypatch, folder, *ALL)
    page = (folder / "out/index.html").read_text()
    assert page.count("<audio controls") == page.count("data:audio/wav;base64,") == 2 * 2
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 2 * 2 and all(source.startswith("data:") for source in sources)
    assert re.findall(r"<tr><td>(\w)</td>", page) == ["c", "a", "b"]  # the worst first
    assert re.findall(r"<h2>(\w)</h2>", page) == ["c", "a"]
    assert "<p>Nothing more.</p>" in page
    assert "The first 2 clips are below." in page


def test_the_terminal_shows_a_table_of_means_and_medians(folder, monkeypatch, terminal):
    run(monkeypatch, folder, *ALL)
    lines = [line.rpartition("\r")[2] for line in terminal.getvalue().split("\n")]  # what a progress bar leaves
    lines = [line for line in lines if line]
    assert lines[0].split() == ["mean", "median"]
    assert "MCD (dB)                  0.00      0.00" in lines
    assert len(lines) < 20 and max(map(len, lines)) < 80


@pytest.fixture
def hearing(monkeypatch):
    """A recognizer that hears what it is told, by the order of clips."""
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    heard: list[str] = []
    monkeypatch.setattr(measure_speech, "load_recognizer", lambda folder: lambda audio, rate: heard.pop(0))
    return heard


def test_words_and_characters_that_are_heard_otherwise_are_the_error_rates(folder, monkeypatch, hearing):
    hearing += ["the quick brown box", "It has two dogs. Has not it", "nothing"]
    result = run(monkeypatch, folder, *ALL, "--recognizer=fake")
    a, b, c = result["clips"]
    assert [clip["word_error_rate"] for clip in (a, b, c)] == [1 / 4, 0, 1 / 2]
    assert a["character_error_rate"] == 1 / len("the quick brown fox")
    assert (b["said"], b["heard"]) == 2 * ("it has 2 dogs has not it",)
    # All words together, in place of the mean of 1/4, 0 and 1/2.
    assert result["overall"]["word_error_rate"] == 2 / (4 + 7 + 2)
    page = (folder / "out/index.html").read_text()
    assert re.findall(r"<mark>(\w+)</mark>", page) == ["more", "fox", "box"]
    assert re.findall(r"<tr><td>(\w)</td>", page) == ["c", "a", "b"]


def test_words_left_out_and_put_in_are_marked():
    pytest.importorskip("jiwer")
    said, heard = recognizer.mark_errors("one two three four", "one three four five")
    assert said == [("one", False), ("two", True), ("three", False), ("four", False)]
    assert heard == [("one", False), ("three", False), ("four", False), ("five", True)]
    assert recognizer.mark_errors("one", "") == ([("one", True)], [])


def test_clips_not_measured_are_named_and_the_rest_is_measured(folder):
    """By the program, with several processes."""
    (folder / "synthesized/b_synthesis.wav").unlink()
    (folder / "wavs/c.wav").write_bytes(b"RIFF")
    (folder / "metadata.csv").write_text("a|A.\nb|B.\nc|C.\nd|D.\n")
    for place in ("wavs/d.wav", "synthesized/d.wav"):
        write_wav(folder / place, voice(0.5), RATE)
    options = [option.format(folder) for option in ALL]
    command = [sys.executable, ROOT / "tools/measure_speech.py", folder / "synthesized", *options, "-o", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 1
    problems = [line for line in done.stderr.splitlines() if line.startswith("not measured: ")]
    assert len(problems) == 2
    assert re.search(r"synthesized/b_synthesis.wav is not readable as audio: no such file", problems[0])
    assert re.search(r"wavs/c.wav is not readable as audio", problems[1])
    assert done.stderr.splitlines()[-1] == "error: 2 of 4 clips could not be measured; measure.json names them"
    result = json.loads((folder / "out/measure.json").read_text())
    assert [clip["name"] for clip in result["clips"]] == ["a", "d"]
    assert result["measured"] == 2
    assert list(result["not_measured"]) == ["b", "c"]
    assert "<dd>b, c</dd>" in (folder / "out/index.html").read_text()


def test_without_metadata_a_clip_without_a_recording_is_named(folder, monkeypatch, caplog):
    (folder / "wavs/b.wav").unlink()
    with pytest.raises(UserError, match="1 of 3 clips could not be measured"):
        run(monkeypatch, folder, ALL[0])
    assert re.search(r"not measured: .*wavs/b.wav is not readable as audio: no such file", caplog.text)


def test_a_recognizer_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(recognizer, "PACKAGES", ("json", "no_such_package"))
    with pytest.raises(UserError, match=r"\(no-such-package\): pip install -r requirement-measure.txt"):
        recognizer.load_recognizer(str(tmp_path))
    monkeypatch.setattr(recognizer, "PACKAGES", ())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no model.bin, tokenizer.json: name the folder"):
        recognizer.load_recognizer(str(tmp_path))


def test_a_recognizer_that_is_damaged_is_said(tmp_path):
    pytest.importorskip("faster_whisper")
    for name in recognizer.FILES:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded as a faster-whisper model"):
        recognizer.load_recognizer(str(tmp_path))
