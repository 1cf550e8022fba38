"""tools/measure_speech.py: which wav belongs to which text, the order and the words of its page and its table."""

import io
import json
import math
import sys
from pathlib import Path

import pytest

from common.evaluation import page, runner
from common.log import console
from common.program import UserError
from conftest import touch
from tools import measure_speech
from tools.measure_speech import badness, find_pairs, shown, shown_columns
from tools.speech.figures import Figures, Pair, SpeechFigures

ALL = {
    "seconds": 1.234, "duration_ratio": 0.987, "mel_l1": 0.5678, "mel_cepstral_distortion": 4.567, "pitch_error": 123.6,
    "voicing_error": 0.1234, "level_correlation": 0.98765, "peak": 0.999, "clipped": 0.00123, "near_silence": 0.4567,
    "word_error_rate": 0.0567, "character_error_rate": 0.0123,
}  # fmt: skip
SHOWN = [
    ("WER", "5.7%"), ("CER", "1.2%"), ("MCD (dB)", "4.57"), ("mel L1", "0.568"), ("F0 error (cents)", "124"),
    ("voicing error", "12.3%"), ("energy correlation", "0.988"), ("duration ratio", "0.99"), ("seconds", "1.23"),
    ("peak", "1.00"), ("clipped", "0.12%"), ("near-silence", "45.7%"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return touch(tmp_path, "ours/b_synthesis.wav", "ours/a.wav", "ours/note.txt", "wavs/a.wav")


def test_without_metadata_there_is_a_pair_for_each_wav(folder):
    ours = folder / "ours"
    assert find_pairs(ours, None, None) == [
        Pair("a", ours / "a.wav", None, ""), Pair("b", ours / "b_synthesis.wav", None, "")
    ]  # fmt: skip
    assert [pair.recording for pair in find_pairs(ours, str(folder / "wavs"), None)] == [
        folder / "wavs/a.wav", folder / "wavs/b.wav"
    ]  # fmt: skip


def test_with_metadata_there_is_a_pair_for_each_line_whether_it_has_a_wav_or_not(folder, caplog):
    touch(folder, "ours/c.wav")
    (folder / "m.csv").write_text("z|Text z.\nb|Text b.\n")
    ours = folder / "ours"
    assert find_pairs(ours, None, str(folder / "m.csv")) == [
        Pair("z", ours / "z_synthesis.wav", None, "Text z."), Pair("b", ours / "b_synthesis.wav", None, "Text b."),
    ]  # fmt: skip
    assert caplog.messages == [f"left out: 2 wavs that {folder / 'm.csv'} has no line for, such as a"]


def test_folders_and_wavs_that_are_not_there_are_said(folder):
    (folder / "empty").mkdir()
    ours, metadata = folder / "ours", folder / "m.csv"
    metadata.write_text("z|Text z.\n")
    for given, said in (
        ((folder / "none", None, None), "none is no folder"),
        ((ours / "a.wav", None, None), r"a\.wav is no folder"),
        ((ours, str(folder / "none"), None), "none is no folder"),
        ((folder / "wavs", None, str(metadata)), rf"wavs holds no \.wav file that {metadata} has a line for"),
        ((folder / "empty", None, str(metadata)), rf"empty holds no \.wav file that {metadata} has a line for"),
        ((folder, None, None), r"holds no \.wav file$"),
    ):
        with pytest.raises(UserError, match=said):
            find_pairs(*given)
    touch(folder, "ours/b.wav")
    with pytest.raises(UserError, match=r"ours/b\.wav and .*ours/b_synthesis\.wav are both of the clip b: remove one"):
        find_pairs(ours, None, None)


def test_figures_are_shown_with_their_titles_in_their_order():
    figures = Figures("mean", **ALL)
    columns = shown_columns(figures)
    assert [(measure_speech.COLUMNS[column][0], shown(figures, column)) for column in columns] == SHOWN
    assert shown_columns(Figures("mean", seconds=1.0, peak=0.0)) == ["seconds", "peak"]
    assert shown(Figures("a"), "peak") == "-"


def test_the_table_of_means_and_medians(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(console, "out", out)
    measure_speech.show_summary(Figures("mean", seconds=1.5, peak=0.25), Figures("median", seconds=2.5))
    lines = [line for line in out.getvalue().replace("\r", "\n").split("\n") if line.strip()]
    assert [line.split() for line in lines] == [["mean", "median"], ["seconds", "1.50", "2.50"], ["peak", "0.25", "-"]]
    assert {len(line.rstrip()) for line in lines} == {40}


def test_the_worst_is_by_words_then_cepstra_then_clipping_then_silence():
    base = {"word_error_rate": 0.5, "mel_cepstral_distortion": 5.0, "clipped": 0.1, "near_silence": 0.5}
    clips = [SpeechFigures("z", **base)]
    for name, change in (("d", {"near_silence": 0.6}), ("c", {"clipped": 0.2, "near_silence": 0.0}),
                         ("b", {"mel_cepstral_distortion": 6.0, "clipped": 0.0}),
                         ("a", {"word_error_rate": 0.6, "mel_cepstral_distortion": 0.0})):  # fmt: skip
        clips.append(SpeechFigures(name, **(base | change)))
    assert [clip.name for clip in sorted(clips, key=badness, reverse=True)] == list("abcdz")
    assert badness(SpeechFigures("x")) == [0.0] * 4


@pytest.mark.parametrize(("count", "more"), [(9, None), (10, None), (11, "... and 1 more clips")])
def test_ten_problems_are_said(caplog, count, more):
    measure_speech.show_problems({f"c{i}": f"c{i} is bad" for i in range(count)})
    assert caplog.messages == [f"not measured: c{i} is bad" for i in range(min(count, 10))] + ([more] if more else [])


@pytest.fixture
def shown_page(monkeypatch):
    """What the page is made of."""
    given = {}
    monkeypatch.setattr(page, "write_page", lambda path, **content: given.update(content, path=path))
    monkeypatch.setattr(measure_speech, "sounds", lambda pair: {"of": pair.name})
    return given


def test_the_page_has_the_worst_first_and_some_to_hear(shown_page, monkeypatch):
    for module in (measure_speech, runner):
        monkeypatch.setattr(module, "CLIPS_ON_PAGE", 2)
    monkeypatch.setattr(measure_speech, "mark_errors", lambda said, heard: ([said], [heard]))
    measured = {
        Pair("a", Path(), None, "Text a."): SpeechFigures("a", seconds=1.0, clipped=0.1),
        Pair("b", Path(), None, "Text b."): SpeechFigures("b", seconds=2.0, clipped=0.3, said="x", heard="y"),
        Pair("c", Path(), None, "Text c."): SpeechFigures("c", seconds=3.0, clipped=0.2),
    }
    means = Figures("mean", seconds=2.0, clipped=0.2)
    measure_speech.write_page(Path("out"), measured, means, {"made": "so", "empty": "", "none": None})
    assert (shown_page["path"], shown_page["title"]) == (Path("out"), "Synthesized speech, measured")
    assert shown_page["facts"] == {"made": "so"}
    assert shown_page["columns"] == ["seconds", "clipped"]
    assert shown_page["overall"] == ["2.00", "20.00%"]
    b, c, a = shown_page["clips"]
    assert b == {
        "name": "b", "figures": ["2.00", "30.00%"], "sounds": {"of": "b"}, "images": {},
        "words": {"said": ["x"], "heard": ["y"]},
    }  # fmt: skip
    assert c == {"name": "c", "figures": ["3.00", "20.00%"], "sounds": {"of": "c"}, "images": {}, "text": "Text c."}
    assert a == {"name": "a", "figures": ["1.00", "10.00%"], "sounds": {}, "images": {}}
    assert shown_page["note"].endswith("docs/measuring.md says more. The first 2 clips are below.")


def test_where_all_can_be_heard_it_is_not_said(shown_page):
    measured = {Pair("a", Path(), None, ""): SpeechFigures("a", seconds=1.0)}
    measure_speech.write_page(Path("out"), measured, Figures("mean", seconds=1.0), {})
    assert shown_page["note"].endswith("docs/measuring.md says more.")
    assert shown_page["clips"][0].keys() == {"name", "figures", "sounds", "images"}


def test_the_recording_is_heard_before_what_was_made_of_it(monkeypatch):
    monkeypatch.setattr(measure_speech, "read_wav", lambda path, rate: (path.name, rate))
    monkeypatch.setattr(page, "as_wav", lambda audio, rate: f"{audio} at {rate}")
    pair = Pair("a", Path("ours.wav"), Path("theirs.wav"), "")
    assert list(measure_speech.sounds(pair).items()) == [
        ("recorded", "('theirs.wav', 22050) at 22050"), ("synthesized", "('ours.wav', 22050) at 22050"),
    ]  # fmt: skip
    assert list(measure_speech.sounds(Pair("a", Path("ours.wav"), None, ""))) == ["synthesized"]


@pytest.fixture
def run(folder, monkeypatch, shown_page):
    """The program over pairs whose figures are given; a UserError for those that cannot be measured."""

    def measure(results, *options):
        pairs = [Pair(name, Path(), None, f"Text {name}.") for name in results]
        monkeypatch.setattr(measure_speech, "find_pairs", lambda *given: measure.__dict__.update(given=given) or pairs)
        monkeypatch.setattr(measure_speech, "measure_all", lambda pairs: list(results.values()))
        monkeypatch.setattr(measure_speech, "load_recognizer", lambda name: f"hears as {name}")
        monkeypatch.setattr(measure_speech, "recognize", lambda measured, hear: measure.__dict__.update(hear=hear))
        monkeypatch.setattr(measure_speech, "open_log", lambda *_, **__: None)
        monkeypatch.setattr(sys, "argv", ["measure", str(folder / "ours"), "-o", str(folder / "out"), *options])
        measure.hear = None
        measure_speech.main()

    return measure


def test_a_run_writes_settings_figures_and_page(run, folder, shown_page, caplog):
    caplog.set_level("INFO")
    results = {
        "a": SpeechFigures("a", seconds=1.0, warped=True), "b": SpeechFigures("b", seconds=2.0),
        "c": SpeechFigures("c", seconds=6.0),
    }  # fmt: skip
    run(results, "--recordings=wavs", "--metadata=m.csv", "--recognizer=whisper")
    assert run.given == (folder / "ours", "wavs", "m.csv")
    assert run.hear == "hears as whisper"
    written = json.loads((folder / "out/measure.json").read_text())
    settings = {"synthesized": str(folder / "ours"), "recordings": "wavs", "metadata": "m.csv", "recognizer": "whisper"}
    assert written["settings"] == settings
    assert (written["measured"], written["not_measured"]) == (3, {})
    assert (written["overall"]["seconds"], written["median"]["seconds"], written["median"]["peak"]) == (3.0, 2.0, None)
    assert [clip["name"] for clip in written["clips"]] == ["a", "b", "c"]
    count = "3 of 3 clips, 1 of them after dynamic time warping"
    assert shown_page["facts"] == settings | {"measured": count}
    assert shown_page["path"] == folder / "out/index.html"
    assert caplog.messages[-1] == f"measured {count}; wrote measure.json and index.html to {folder / 'out'}"


def test_what_could_not_be_measured_is_told_and_ends_it_with_an_error(run, folder, shown_page, caplog):
    caplog.set_level("WARNING")
    results = {"a": SpeechFigures("a", seconds=1.0), "b": UserError("b is bad"), "c": UserError("c is worse")}
    with pytest.raises(UserError, match=r"^2 of 3 clips could not be measured; measure\.json names them$"):
        run(results)
    assert run.hear is None
    written = json.loads((folder / "out/measure.json").read_text())
    assert written["not_measured"] == {"b": "b is bad", "c": "c is worse"}
    assert shown_page["facts"]["not measured"] == "b, c"
    assert shown_page["facts"]["measured"] == "1 of 3 clips"
    assert caplog.messages == ["not measured: b is bad", "not measured: c is worse"]
    with pytest.raises(UserError, match="none of the 2 clips could be measured"):
        run({"a": UserError("a"), "b": UserError("b")})


def test_a_recognizer_without_metadata_and_unknown_options_end_with_code_2(run, capsys):
    for options, said in (
        (["--recognizer=x", "--recordings=y"], "--recognizer needs --metadata"),
        (["--nonsense"], ""),
    ):
        with pytest.raises(SystemExit) as end:
            run({"a": SpeechFigures("a")}, *options)
        assert end.value.code == 2
        assert said in capsys.readouterr().err


def test_no_figure_is_left_out_of_the_columns():
    assert {*measure_speech.COLUMNS} == {*ALL} == {*vars(Figures("a"))} - {"name", "recorded_seconds"}
    assert math.isnan(Figures("a").peak)
