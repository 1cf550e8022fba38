"""tools/prepare_data.py as a program: what it makes is taken by both models, and what is not its own stays."""

import csv
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from speech_like import speech

from common.corpus import find_clips
from common.log import console
from common.program import UserError
from conftest import RATE, toy_config, toy_tacotron2_config
from runs import start
from tools import prepare_data
from tools.prepare import clips, folder, report
from tools.prepare.convert import Recipe
from tools.prepare.levels import find_levels
from tools.prepare.problems import Kind, Problem

pytestmark = pytest.mark.usefixtures("handlers")

SENTENCES = ["The first one.", "A second one is here.", "Number three.", "And the fourth is last."]


@pytest.fixture(autouse=True)
def picture(monkeypatch, request):
    """Histograms take most of the time, and are drawn for those tests that ask for them."""
    if "histograms" not in request.fixturenames:
        monkeypatch.setattr(report, "draw", lambda report: Figure(figsize=(1, 1)))


@pytest.fixture
def histograms():
    pass


@pytest.fixture
def source(tmp_path):
    """Stereo FLAC of 16 kHz in a subfolder, and a metadata.csv in UTF-16."""
    folder = tmp_path / "source"
    (folder / "audio").mkdir(parents=True)
    for i in range(4):
        audio = speech(1.5 + i / 10, seed=i, rate=16000)
        soundfile.write(folder / "audio" / f"clip {i}.flac", np.stack([audio, audio], 1), 16000)
    write_texts(folder, SENTENCES)
    return folder


def write_texts(folder, texts):
    lines = [f"audio/clip {i}.flac|anna|{text}\r\n" for i, text in enumerate(texts)]
    (folder / "metadata.csv").write_bytes("".join(lines).encode("utf-16"))


def prepare(monkeypatch, source, target, *options):
    monkeypatch.setattr(sys, "argv", ["prepare_data", str(source), str(target), "--jobs=1", *options])
    monkeypatch.setattr(prepare_data, "open_log", lambda *args, **kwargs: logging.getLogger().setLevel(logging.INFO))
    prepare_data.main()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_both_models_train_on_what_was_made(source, tmp_path, monkeypatch):
    prepare(monkeypatch, source, tmp_path / "data")
    data = tmp_path / "data"
    lines = [f"clip {i}|{text}\n" for i, text in enumerate(SENTENCES)]
    assert (data / "metadata.csv").read_text() == "".join(lines)
    for path in find_clips(str(data)):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    assert {path.name for path in data.iterdir()} == {
        "wavs", "metadata.csv", "index.html", "problems.txt", "clips.csv", "report.json", "prepared.json",
        ".clips.jsonl",
    }  # fmt: skip
    for name, toy in {"waveglow": toy_config, "tacotron2": toy_tacotron2_config}.items():
        run, _ = start(toy(), data, tmp_path / name, max_steps=2, batch_size=2)
        assert run.progress.iteration == 2


def test_the_reports_say_what_was_done_and_what_is_wrong(histograms, source, tmp_path, monkeypatch, caplog):
    (source / "audio/clip 1.flac").write_bytes(b"no audio")
    write_texts(source, [*SENTENCES[:3], "It was in 1905 % long", "Nobody's."])
    prepare(monkeypatch, source, tmp_path / "data")
    lines = (tmp_path / "data/problems.txt").read_text().splitlines()
    kinds = [line.split(": ")[:2] for line in lines]
    assert kinds[:2] == [["left out", "audio that cannot be read"], ["left out", "a text without its audio"]]
    assert ["look at", "signs that are not learned"] in kinds and ["look at", "numbers"] in [
        [a, b[:7]] for a, b in kinds
    ]
    rows = list(csv.DictReader((tmp_path / "data/clips.csv").open()))
    assert [(row["name"], row["used"]) for row in rows] == [(f"clip {i}", "no" if i == 1 else "yes") for i in range(4)]
    assert rows[0]["done"].startswith("2 channels mixed; resampled from 16000 Hz")
    assert "not readable" in rows[1]["done"] and rows[0]["speaker"] == "anna"
    said = json.loads((tmp_path / "data/report.json").read_text())
    assert said["clips"] == 3 and said["left_out"] == 2 and len(said["problems"]) == len(lines)
    assert said["signs"]["%"]["lost"] and sum(said["histograms"]["duration (s)"]["counts"]) == 3
    assert said["speakers"]["anna"]["clips"] == 3
    levels = [find_levels(speech(1.5 + i / 10, seed=i, rate=16000), 16000).speech for i in (0, 2, 3)]
    edges = said["histograms"]["level of the recordings (dB)"]["edges"]  # as they were before they were made louder
    assert (edges[0], edges[-1]) == pytest.approx((min(levels), max(levels)), abs=0.5)
    page = (tmp_path / "data/index.html").read_text()
    assert "data:audio/mpeg" in page and "clip 1.flac is not readable" in page and 'src="http' not in page
    assert caplog.text.count("left out: ") >= 2


def test_the_page_shows_the_worst_of_a_kind_and_plays_some_of_them(monkeypatch):
    problems = [Problem(Kind.PAUSE, f"{i:02}", f"{i:02}", degree=i) for i in range(25)]
    facts = {"items": {}, "clips": {problem.name: None for problem in problems}, "recipe": Recipe()}
    monkeypatch.setattr(report, "as_sound", lambda path, rate: path.name)
    shown = report._kind(Kind.PAUSE, SimpleNamespace(problems=problems, **facts), Path())
    assert shown["count"] == 25
    assert [each["message"] for each in shown["problems"]] == [f"{i:02}" for i in range(24, 4, -1)]
    assert [each["sound"] for each in shown["problems"] if each["sound"]] == [f"{i}.wav" for i in range(24, 16, -1)]


def test_a_dry_run_says_everything_and_writes_nothing(source, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(console, "out", sys.stdout)
    (source / "audio/clip 1.flac").write_bytes(b"no audio")
    before = contents(tmp_path)
    prepare(monkeypatch, source, tmp_path / "data", "--dry_run")
    assert contents(tmp_path) == before and not (tmp_path / "data").exists()
    assert "clip 1.flac is not readable" in capsys.readouterr().out
    assert "would hold 3 clips" in caplog.text


def test_the_same_command_changes_nothing_and_converts_nothing(source, tmp_path, monkeypatch):
    prepare(monkeypatch, source, tmp_path / "data")
    first = contents(tmp_path / "data")
    monkeypatch.setattr(clips, "make_clip", None)
    prepare(monkeypatch, source, tmp_path / "data")
    assert contents(tmp_path / "data") == first


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same(source, tmp_path, monkeypatch):
    prepare(monkeypatch, source, tmp_path / "data")
    monkeypatch.setattr(clips, "FEW", 0)
    prepare(monkeypatch, source, tmp_path / "other", "--jobs=2")
    ours, theirs = (contents(tmp_path / name) for name in ("data", "other"))
    for name in ("index.html", ".clips.jsonl"):  # the page has the folder's name, the list its order of writing
        del ours[name], theirs[name]
    assert ours == theirs


def test_only_what_is_new_is_converted(source, tmp_path, monkeypatch):
    prepare(monkeypatch, source, tmp_path / "data")
    soundfile.write(source / "audio/clip 2.flac", speech(2, seed=9, rate=16000), 16000)
    os.utime(source / "audio/clip 0.flac", (1, 1))  # it may be another one of the same size
    (source / "audio/clip 3.flac").unlink()
    write_texts(source, ["Another text.", *SENTENCES[1:]])
    made = []
    monkeypatch.setattr(clips, "make_clip", lambda job, make=clips.make_clip: made.append(job.item.name) or make(job))
    prepare(monkeypatch, source, tmp_path / "data")
    assert made == ["clip 0", "clip 2"]
    measured = json.loads((tmp_path / "data/report.json").read_text())["measured"]
    assert list(measured) == ["clip 0", "clip 1", "clip 2"]
    assert [path.stem for path in find_clips(str(tmp_path / "data"))] == ["clip 0", "clip 1", "clip 2"]
    assert (tmp_path / "data/metadata.csv").read_text().startswith("clip 0|Another text.\n")
    prepare(monkeypatch, source, tmp_path / "data", "--level=-26")
    assert len(made) == 5


def test_a_run_that_was_stopped_goes_on(source, tmp_path, monkeypatch, handlers):
    """Until all is there nothing can be trained with it, nor does what was there before change."""
    prepare(monkeypatch, source, tmp_path / "whole")
    prepare(monkeypatch, source, tmp_path / "data", "--level=-26")
    before, made = contents(tmp_path / "data"), []

    def stop_at_the_third(job, make=clips.make_clip):
        made.append(job.item.name)
        if len(made) == 3:
            handlers[signal.SIGTERM](signal.SIGTERM, None)
        return make(job)

    monkeypatch.setattr(clips, "make_clip", stop_at_the_third)
    with pytest.raises(SystemExit, match="143"):
        prepare(monkeypatch, source, tmp_path / "data")
    after = contents(tmp_path / "data")
    assert {name: after[name] for name in before} == before
    (tmp_path / "data/.new/clip 1.wav").write_bytes(b"RIFF")  # as by a power cut
    prepare(monkeypatch, source, tmp_path / "data")
    assert made == [f"clip {i}" for i in (0, 1, 2, 1, 3)]
    for name in ("metadata.csv", *(f"wavs/clip {i}.wav" for i in range(4))):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "data/.new").exists()


def test_what_a_stopped_run_left_is_not_taken_for_what_is_there(source, tmp_path, monkeypatch, handlers):
    prepare(monkeypatch, source, tmp_path / "data")
    before = contents(tmp_path / "data")
    handlers.clear()
    with monkeypatch.context() as context:
        context.setattr(clips, "make_clip", lambda job, make=clips.make_clip: [
            make(job), handlers[signal.SIGTERM](signal.SIGTERM, None)][0])  # fmt: skip
        with pytest.raises(SystemExit):
            prepare(context, source, tmp_path / "data", "--level=-26")
    prepare(monkeypatch, source, tmp_path / "data")
    assert contents(tmp_path / "data") == before


@pytest.mark.parametrize("at", [f".{folder.DONE}", folder.MARK, folder.TEXTS])
def test_a_run_that_was_killed_as_its_clips_took_their_places_goes_on(source, tmp_path, monkeypatch, at):
    """And what is not in the source any more is not kept."""
    write_texts(source, SENTENCES[:2])
    prepare(monkeypatch, source, tmp_path / "data")
    write_texts(source, SENTENCES)

    def killed(self, name, content, write=folder.Folder._write):
        if name == at:
            raise KeyboardInterrupt
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(folder.Folder, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(patch, source, tmp_path / "data")
    assert len(find_clips(str(tmp_path / "data"))) == 4
    write_texts(source, SENTENCES[:2])
    for _ in range(2):
        prepare(monkeypatch, source, tmp_path / "data")
        assert [path.stem for path in find_clips(str(tmp_path / "data"))] == ["clip 0", "clip 1"]


def test_what_is_not_its_own_is_not_touched(source, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("It.")
    with pytest.raises(UserError, match=r"holds files, but no prepared\.json: this program has not made it"):
        prepare(monkeypatch, source, tmp_path / "mine")
    data = tmp_path / "data"
    prepare(monkeypatch, source, data)
    for path, message in (
        (data / "metadata.csv", "metadata.csv was changed since this program wrote it"),
        (data / "wavs/clip 0.wav", "clip 0.wav was not made by this program, or changed since"),
        (data / "wavs/more.wav", "more.wav was not made by this program"),
    ):
        content = path.read_bytes() if path.exists() else None
        path.write_bytes(b"mine")
        for option in ([], ["--dry_run"]):
            with pytest.raises(UserError, match=message):
                prepare(monkeypatch, source, data, *option)
        assert path.read_bytes() == b"mine"
        path.unlink() if content is None else path.write_bytes(content)
    prepare(monkeypatch, source, data)


def test_of_several_speakers_one_can_be_chosen(source, tmp_path, monkeypatch, caplog):
    lines = [f"clip {i}|{'anna' if i % 2 else 'max'}|{text}" for i, text in enumerate(SENTENCES)]
    (source / "metadata.csv").write_text("\n".join(lines))
    prepare(monkeypatch, source, tmp_path / "both")
    assert "2 speakers (max 2, anna 2), but a voice is one: choose it with --speaker=NAME" in caplog.text
    prepare(monkeypatch, source, tmp_path / "anna", "--speaker=anna")
    assert [path.stem for path in find_clips(str(tmp_path / "anna"))] == ["clip 1", "clip 3"]
    with pytest.raises(UserError, match="there is no speaker 'eva'; there are anna, max"):
        prepare(monkeypatch, source, tmp_path / "eva", "--speaker=eva")


def test_audio_alone_is_for_waveglow(source, tmp_path, monkeypatch, caplog):
    (source / "metadata.csv").unlink()
    prepare(monkeypatch, source, tmp_path / "data")
    assert len(find_clips(str(tmp_path / "data"))) == 4 and not (tmp_path / "data/metadata.csv").exists()
    assert "WaveGlow can be trained with it, Tacotron2 cannot" in caplog.text


def test_the_rate_and_the_cleaners_are_the_configuration_s(source, tmp_path, monkeypatch):
    config = {"data_config": {"sampling_rate": 16000, "text_cleaners": ["basic_cleaners"]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_texts(source, ["Grüße aus Köln.", *SENTENCES[1:]])
    prepare(monkeypatch, source, tmp_path / "data", f"--config={tmp_path / 'config.json'}")
    assert soundfile.info(tmp_path / "data/wavs/clip 0.wav").samplerate == 16000
    assert json.loads((tmp_path / "data/report.json").read_text())["signs"]["ß"]["lost"]


def test_where_nothing_can_be_used_it_is_said_why(source, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="none of the 4 clips can be used"):
        prepare(monkeypatch, source, tmp_path / "data", "--min_seconds=9")
    assert len((tmp_path / "data/problems.txt").read_text().splitlines()) == 4
    prepare(monkeypatch, source, tmp_path / "data")


def test_files_whose_names_are_no_utf8_are_taken_and_named(source, tmp_path, monkeypatch):
    (source / "metadata.csv").unlink()
    name = b"\xfcbung.flac".decode(errors="surrogateescape")
    (source / "audio/clip 0.flac").rename(source / "audio" / name)
    (source / "audio" / f"bad{name}").write_bytes(b"no audio")
    prepare(monkeypatch, source, tmp_path / "data")
    assert {path.stem for path in find_clips(str(tmp_path / "data"))} == {"_bung", "clip 1", "clip 2", "clip 3"}
    assert r"bad\udcfcbung.flac" in (tmp_path / "data/problems.txt").read_text()


def test_a_run_that_was_killed_as_it_began_goes_on(tmp_path, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "written_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.Folder(tmp_path / "out").begin()
    (tmp_path / "out" / f".{folder.MARK}.1.part").write_text("{")
    folder.Folder(tmp_path / "out").begin()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {folder.MARK, folder.NEW}
    (tmp_path / "out" / folder.MARK).unlink()
    with pytest.raises(UserError, match="this program has not made it"):
        folder.Folder(tmp_path / "out")
