"""tools/prepare_data.py: the clips that a run converts, what it does with them, and what it says at the end."""

import logging
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_lines import read

from common.audio import ClipError, Fault, read_wav
from common.log import console
from common.program import UserError
from tacotron2.config import DataConfig
from tools import prepare_data
from tools.prepare import clips as module
from tools.prepare.clips import Job, convert_all, make_clip
from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures
from tools.prepare.problems import Kind, Problem
from tools.prepare.report import Report
from tools.prepare.sources import Item, Source


class Kept:
    """Stands in for a folder that has some clips already."""

    def __init__(self, folder, **known):
        self.new, self.known, self.added = folder, known, []

    def find(self, item, recipe):
        return self.known.get(item.name)

    def add(self, item, recipe, clip):
        self.added.append(item.name)


@pytest.fixture
def made(monkeypatch):
    """The jobs that are done; the clip "bad" cannot be used."""
    jobs = []

    def make(job):
        jobs.append(job)
        name = job.item.name
        return Problem(Kind.SILENT, "is silent", name) if name == "bad" else ConvertedClip(Figures(form=name))

    monkeypatch.setattr(module, "make_clip", make)
    monkeypatch.setattr(module, "in_processes", lambda begin, orders, jobs, stop: map(begin(), orders))
    return jobs


ITEMS = [Item(Path(f"{name}.flac"), "", "", name=name) for name in ("b", "known", "bad", "a")]
GO_ON = SimpleNamespace(requested=0)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(("jobs", "few"), [(1, 0), (2, 100), (2, 0)])
def test_what_is_missing_is_converted_in_the_order_of_the_items(made, monkeypatch, tmp_path, dry_run, jobs, few):
    monkeypatch.setattr(module, "FEW", few)
    folder = Kept(tmp_path, known=ConvertedClip(Figures(form="old")))
    clips, problems = convert_all(ITEMS, Recipe(), folder, jobs, dry_run, GO_ON)
    assert [(name, clip.figures.form) for name, clip in clips.items()] == [("b", "b"), ("known", "old"), ("a", "a")]
    assert problems == [Problem(Kind.SILENT, "is silent", "bad")]
    targets = [None if dry_run else tmp_path / f"{name}.wav" for name in ("b", "bad", "a")]
    assert [job.target for job in made] == targets
    assert folder.added == ([] if dry_run else ["b", "a"])


@pytest.mark.parametrize(("jobs", "count", "several"), [(2, 3, True), (2, 2, False), (1, 3, False)])
def test_processes_start_for_more_than_a_few(made, monkeypatch, tmp_path, jobs, count, several):
    monkeypatch.setattr(module, "FEW", 2)
    started = []
    monkeypatch.setattr(
        module, "in_processes", lambda begin, orders, jobs, stop: started.append(jobs) or map(begin(), orders)
    )
    convert_all(ITEMS[:count], Recipe(), Kept(tmp_path), jobs, True, GO_ON)
    assert started == [jobs] * several


def test_who_is_stopped_converts_no_further(made, tmp_path):
    clips, problems = convert_all(ITEMS, Recipe(), Kept(tmp_path), 1, False, SimpleNamespace(requested=15))
    assert (clips, problems, made) == ({}, [], [])


@pytest.mark.parametrize("target", [None, "a.wav"])
def test_a_clip_is_written_at_its_rate(monkeypatch, tmp_path, target):
    audio, clip = np.linspace(-0.5, 0.5, 160, dtype=np.float32), ConvertedClip(Figures())
    monkeypatch.setattr(module, "convert", lambda path, recipe: (audio, clip))
    job = Job(ITEMS[0], Recipe(16000), target and tmp_path / target)
    assert make_clip(job) is clip
    assert [path.name for path in tmp_path.iterdir()] == ([target] if target else [])
    if target:
        np.testing.assert_allclose(read_wav(tmp_path / target, 16000), audio, atol=1 / 32768)


def test_a_clip_that_cannot_be_used_is_a_problem_of_its_name(monkeypatch):
    def fail(path, recipe):
        raise ClipError("b.flac is too long", Fault.SHORT)

    monkeypatch.setattr(module, "convert", fail)
    assert make_clip(Job(ITEMS[0], Recipe(), None)) == Problem(Kind.LENGTH, "b.flac is too long", "b")


# ---- what is said ----


def report_of(problems, clips=2, symbols=True):
    made = {f"c{i}": ConvertedClip(Figures(seconds=1800.0)) for i in range(clips)}
    return Report("", Recipe(), [], {}, made, dict.fromkeys(made, 9) if symbols else {}, {}, problems)


@pytest.mark.parametrize(("count", "more"), [(4, None), (5, None), (6, "... and 1 more in to/problems.txt")])
def test_the_worst_problems_are_said_and_the_others_stand_in_a_file(monkeypatch, caplog, count, more):
    problems = [Problem(Kind.PAUSE, f"c{i}", degree=-i) for i in range(count)]
    prepare_data.say_problems(report_of(problems), read(monkeypatch, prepare_data, "from", "to"))
    said = [f"look at: a long pause: c{i}" for i in range(min(count, 5))]
    assert caplog.messages == said + ([more] if more else [])


def test_a_dry_run_says_all_of_them(monkeypatch, caplog):
    lines = []
    monkeypatch.setattr(console, "say", lines.append)
    prepare_data.say_problems(
        report_of([Problem(Kind.PAUSE, f"c{i}", degree=-i) for i in range(9)]),
        read(monkeypatch, prepare_data, "from", "to", "--dry_run"),
    )
    assert lines == [f"look at: a long pause: c{i}" for i in range(9)]
    assert not caplog.messages


OUT, ODD = Problem(Kind.SILENT, "a"), Problem(Kind.PAUSE, "b")


@pytest.mark.parametrize(
    ("report", "options", "said"),
    [
        (report_of([OUT, ODD, ODD]), [], [
            "to holds 2 clips, 1.00 h; 1 left out, 2 things to look at: to/index.html", "train with --data_path=to"]),
        (report_of([], clips=1, symbols=False), [], [
            "to holds 1 clips, 0.50 h, 0 things to look at: to/index.html",
            "there are no texts: WaveGlow can be trained with it, Tacotron2 cannot", "train with --data_path=to"]),
        (report_of([OUT, ODD]), ["--dry_run"], [
            "to would hold 2 clips, 1.00 h; 1 left out, 1 things to look at; nothing was written"]),
    ],
)  # fmt: skip
def test_the_last_lines(monkeypatch, caplog, report, options, said):
    caplog.set_level(logging.INFO)
    prepare_data.say_result(report, read(monkeypatch, prepare_data, "from", "to", *options))
    assert caplog.messages == said


class Steps:
    """A folder that notes what is done with it."""

    def __init__(self):
        self.did = []

    def begin(self):
        self.did.append("begin")

    def finish(self, items, facts):
        self.did.append(("finish", list(items), facts))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """prepare() with clips that are converted already; (the folder's steps, the report)."""

    def prepare(items, clips, problems=(), dry_run=False, stop=0, rate=22050):
        given, folder = {}, Steps()
        figures = Figures(rate=22050, level=-20.0, noise_floor=-60.0, seconds=1.0, fingerprint="80")
        made = {name: ConvertedClip(figures) for name in clips}
        monkeypatch.setattr(
            prepare_data, "convert_all", lambda items, *_: given.update(usable=items) or (made, list(problems))
        )
        for name in ("say_problems", "say_result"):
            monkeypatch.setattr(prepare_data, name, lambda report, args, name=name: given.update({name: report}))
        for name in ("write_report", "write_problems"):
            monkeypatch.setattr(prepare_data, name, lambda report, target, name=name: given.update({name: target}))
        args = SimpleNamespace(dry_run=dry_run, jobs=1, target=tmp_path / "data", source=Path("src"))
        source = Source(list(items), [Problem(Kind.NO_AUDIO, "gone")], ["a fact"])
        try:
            prepare_data.prepare(source, folder, Recipe(rate), DataConfig(), args, SimpleNamespace(requested=stop))
        finally:
            prepare.did, prepare.given = folder.did, given
        return given["say_result"]

    return prepare


TEXTS = [Item(Path(f"{n}.wav"), text, f"line {n}", name=n) for n, text in (("a", "A 5 é."), ("b", "!!"), ("c", "C 6."))]


def test_what_a_run_does_and_tells(run, tmp_path):
    report = run(TEXTS, ["a"], [Problem(Kind.SILENT, "c is silent", "c")])
    assert [item.name for item in run.given["usable"]] == ["a", "c"]  # without what cannot be spoken
    assert run.did[0] == "begin"
    made = {"made": "22050 Hz, speech at -20 dB, 0.1 s of silence at the edges, 0.5 to 15 s", "source": "src"}
    assert run.did[1:] == [("finish", ["a"], made)]
    assert (report.title, report.facts) == ("Data set data", ["a fact"])
    assert list(report.items) == ["a", "b", "c"] and list(report.clips) == ["a"]
    assert report.symbols.keys() == {"a", "c"}
    assert set(report.signs) == set("A5é.")  # of what is in the data set
    kinds = sorted((problem.kind.name, problem.name) for problem in report.problems)
    assert kinds == [("NO_AUDIO", ""), ("NUMBERS", "a"), ("SILENT", "c"), ("TEXT", "b")]
    assert run.given["write_report"] == tmp_path / "data" and "write_problems" not in run.given


@pytest.mark.parametrize(("rate", "lacks"), [(22050, False), (22051, True), (16000, False)])
def test_a_recording_is_compared_with_the_rate_of_the_data_set(run, rate, lacks):
    report = run(TEXTS, ["a"], rate=rate)
    assert (Kind.BAND in {problem.kind for problem in report.problems}) == lacks
    assert report.recipe.sampling_rate == rate


def test_texts_alone_decide_what_cannot_be_spoken(run):
    audio = [Item(Path("a.wav"), None, "", name="a"), Item(Path("b.wav"), "", "", name="b")]
    assert list(run(audio, ["a"]).clips) == ["a"]
    assert [item.name for item in run.given["usable"]] == ["a"]


def test_a_dry_run_writes_nothing(run):
    run(TEXTS, ["a"], dry_run=True)
    assert run.did == [] and not run.given.keys() & {"write_report", "write_problems"}
    with pytest.raises(UserError, match="none of the 3 clips can be used, see above"):
        run(TEXTS, [], dry_run=True)
    assert "write_problems" not in run.given


def test_where_no_clip_can_be_used_the_problems_are_written(run, tmp_path):
    with pytest.raises(UserError, match=r"none of the 3 clips can be used, see .*data/problems\.txt"):
        run(TEXTS, [])
    assert run.given["write_problems"] == tmp_path / "data"
    assert run.did == ["begin"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_code(run, number, caplog):
    with pytest.raises(SystemExit) as end:
        run(TEXTS, ["a"], stop=number)
    assert end.value.code == 128 + number
    assert caplog.messages == ["stopped by a signal; the same command goes on from here"]
    assert run.did == ["begin"] and "say_result" not in run.given
