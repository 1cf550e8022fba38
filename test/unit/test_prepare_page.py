"""tools/prepare_data.py: what its page, its table and its JSON say, each number and each word of it."""

import base64
import csv
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile

from common.audio import write_wav
from common.evaluation import page
from tools.prepare import report as module
from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures
from tools.prepare.problems import Kind, Problem
from tools.prepare.report import Report, as_json, as_sound, describe, draw, problem_lines, speakers, table, write_report
from tools.prepare.sources import Item
from tools.prepare.texts import Sign

TONE = (0.3 * np.sin(np.arange(22050) / 10)).astype(np.float32)


@pytest.fixture
def report(tmp_path):
    """Of two clips, one with a text, and of one that is left out."""
    items = {
        "a": Item(tmp_path / "src/a.flac", "A text.", "list line 1", "anna", "a"),
        "b": Item(tmp_path / "src/b\udcfc.flac", None, "list line 2", "bob", "b"),
        "c": Item(tmp_path / "src/c.flac", "Gone.", "list line 3", "anna", "c"),
    }
    clips = {
        "a": ConvertedClip(
            Figures("FLAC", 44100, 2, seconds=1800.0, gain=2.5, sha256="12", fingerprint="34"), ["x", "y"]
        ),
        "b": ConvertedClip(Figures("WAV", 22050, 1, seconds=900.0), []),
    }
    problems = [
        Problem(Kind.PAUSE, "a: a pause", "a", 2.0), Problem(Kind.UNREADABLE, "c: no audio", "c"),
        Problem(Kind.UNUSED, "d: no list", ""),
    ]  # fmt: skip
    signs = {"é": Sign(7, "e", lost=False), "☃": Sign(1, "", lost=True)}
    for name in clips:
        write_wav(tmp_path / f"wavs/{name}.wav", TONE, 22050)
    return Report("Data set x", Recipe(), ["list: 3 lines", "more"], items, clips, {"a": 90}, signs, problems)


def test_hours_and_what_is_left_out(report):
    assert (report.hours, report.left_out) == (0.75, 2)
    assert speakers(report) == {"anna": (1, 0.5), "bob": (1, 0.25)}
    report.clips["c"] = report.clips["a"]
    assert speakers(report) == {"anna": (2, 1.0), "bob": (1, 0.25)}
    assert [*speakers(replace(report, clips={name: report.clips[name] for name in "ba"}))] == ["anna", "bob"]


def test_lines_of_problems(report):
    assert problem_lines(report.problems) == [
        "left out: audio that cannot be read: c: no audio",
        "left out: audio without a text: d: no list",
        "look at: a long pause: a: a pause",
    ]


def test_a_row_for_each_clip(report):
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(table(report)))}
    a, b, c = (rows[name] for name in "abc")
    assert [row["used"] for row in (a, b, c)] == ["yes", "yes", "no"]
    assert [row["done"] for row in (a, b, c)] == ["x; y", "", "c: no audio"]
    assert a["recording"].endswith("src/a.flac") and b["recording"].endswith(r"src/b\udcfc.flac")
    assert [(row["from"], row["speaker"], row["text"], row["symbols"]) for row in (a, b, c)] == [
        ("list line 1", "anna", "A text.", "90"), ("list line 2", "bob", "", ""), ("list line 3", "anna", "Gone.", ""),
    ]  # fmt: skip
    assert (a["form"], a["rate"], a["gain"], a["seconds"]) == ("FLAC", "44100", "2.5", "1800.0")
    assert "sha256" not in a and "fingerprint" not in a
    assert not any(c[name] for name in ("form", "rate", "seconds"))


def test_everything_in_numbers(report):
    said = as_json(report)
    shown = {name: said[name] for name in ("clips", "hours", "left_out", "source", "recipe")}
    assert shown == {
        "clips": 2, "hours": 0.75, "left_out": 2, "source": ["list: 3 lines", "more"], "recipe": asdict(Recipe()),
    }  # fmt: skip
    assert said["speakers"] == {"anna": {"clips": 1, "hours": 0.5}, "bob": {"clips": 1, "hours": 0.25}}
    assert said["signs"]["☃"] == {"count": 1, "read_as": "", "lost": True}
    assert said["problems"] == [
        {"kind": "unreadable", "left_out": True, "clip": "c", "message": "c: no audio"},
        {"kind": "unused", "left_out": True, "clip": "", "message": "d: no list"},
        {"kind": "pause", "left_out": False, "clip": "a", "message": "a: a pause"},
    ]
    assert said["measured"].keys() == {"a", "b"}
    assert said["measured"]["a"]["gain"] == 2.5 and "sha256" not in said["measured"]["a"]
    durations = said["histograms"]["duration (s)"]
    assert (sum(durations["counts"]), len(durations["counts"]), len(durations["edges"])) == (2, 30, 31)
    assert (durations["edges"][0], durations["edges"][-1]) == (900, 1800)
    assert said["histograms"]["symbols a second"]["counts"] == [0] * 15 + [1] + [0] * 14
    assert said.keys() == {*shown, "speakers", "signs", "histograms", "problems", "measured"}


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(), "22050 Hz, speech at -20 dB, 0.1 s of silence at the edges, 0.5 to 15 s"),
        (Recipe(16000, 0.0, 0.0, 1.0, 2.5), "16000 Hz, speech at 0 dB, 0 s of silence at the edges, 1 to 2.5 s"),
        (Recipe(level=None, margin=None), "22050 Hz, level as it was, edges as they were, 0.5 to 15 s"),
    ],
)
def test_a_recipe_in_words(recipe, said):
    assert describe(recipe) == said


@pytest.mark.parametrize(("rate", "form"), [(22050, "MP3"), (48000, "MP3"), (8000, "MP3"), (20000, "WAV")])
def test_sounds_are_small_where_mp3_has_their_rate(tmp_path, rate, form):
    write_wav(tmp_path / "a.wav", TONE, rate)
    kind, _, data = as_sound(tmp_path / "a.wav", rate).partition(";base64,")
    assert kind == {"MP3": "data:audio/mpeg", "WAV": "data:audio/wav"}[form]
    audio, found = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert found == rate
    assert np.abs(audio).max() == pytest.approx(0.3, abs=0.05)


def test_all_four_are_written_and_the_page_gets_what_it_shows(report, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(module, "draw", lambda report: None)
    monkeypatch.setattr(page, "as_png", lambda figure: "picture")
    monkeypatch.setattr(page, "write_page", lambda path, template, **values: given.update(values, path=path))
    write_report(report, tmp_path)
    assert (tmp_path / "problems.txt").read_text() == "".join(f"{line}\n" for line in problem_lines(report.problems))
    assert (tmp_path / "clips.csv").read_text() == table(report)
    assert json.loads((tmp_path / "report.json").read_text()) == as_json(report)
    assert given["path"] == tmp_path / "index.html"
    assert given["facts"] == {
        "clips": 2, "hours": "0.75", "left out": 2, "source": "list: 3 lines; more", "made": describe(report.recipe),
    }  # fmt: skip
    assert (given["title"], given["picture"], given["list"]) == ("Data set x", "picture", "problems.txt")
    assert given["speakers"] == speakers(report)
    assert given["signs"] == [("é", "U+00E9", 7, "e", False), ("☃", "U+2603", 1, "", True)]
    unreadable, unused, pause = given["kinds"]
    assert [(kind["title"], kind["left_out"], kind["count"]) for kind in given["kinds"]] == [
        ("audio that cannot be read", True, 1), ("audio without a text", True, 1), ("a long pause", False, 1),
    ]  # fmt: skip
    assert unreadable["problems"] == [{"message": "c: no audio", "text": "Gone.", "sound": ""}]
    assert unused["problems"] == [{"message": "d: no list", "text": "", "sound": ""}]
    (shown,) = pause["problems"]
    assert (shown["text"], shown["sound"]) == ("A text.", as_sound(tmp_path / "wavs/a.wav", 22050))


def test_nothing_left_out_is_not_said(report, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(module, "draw", lambda report: None)
    monkeypatch.setattr(page, "as_png", lambda figure: "")
    monkeypatch.setattr(page, "write_page", lambda path, template, **values: given.update(values))
    report.problems[1:] = []
    module.write_page(report, tmp_path)
    assert "left out" not in given["facts"]


def test_the_pictures(report):
    """A histogram of each figure; of texts their durations, those that hardly fit in red."""
    names = [f"c{i:02}" for i in range(24)]
    symbols = {name: 150 - 5 * i for i, name in enumerate(names)}
    clips = {name: ConvertedClip(Figures(seconds=0.5 + count / 15)) for name, count in symbols.items()}
    odd = [Problem(Kind.MISMATCH, "", "c03"), Problem(Kind.PAUSE, "", "c05")]
    figure = draw(Report("", Recipe(), [], {}, clips | {"mute": ConvertedClip(Figures(seconds=9.0))}, symbols, {}, odd))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0] == "duration (s)" and titles[8] == "duration (s) over symbols"
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 25
    good, bad, line = figure.axes[8].lines
    expected = {symbols[name]: clips[name].figures.seconds for name in names}
    assert dict(zip(*bad.get_data(), strict=True)) == {symbols["c03"]: expected[symbols["c03"]]}
    assert dict(zip(*good.get_data(), strict=True)) == {n: s for n, s in expected.items() if n != symbols["c03"]}
    assert list(line.get_xdata()) == sorted(expected)
    np.testing.assert_allclose(line.get_ydata(), [expected[count] for count in sorted(expected)])
    assert not any("symbols" in axis.get_title(loc="left") for axis in draw(
        Report("", Recipe(), [], {}, clips, {}, {}, [])).axes)  # fmt: skip
