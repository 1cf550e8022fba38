"""tools/make_corpus.py: its options on both sides of their limits, which lines it speaks, what it writes and says."""

import hashlib
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_lines import read

import fake_engine
from common.program import UserError
from conftest import RATE
from tools import make_corpus
from tools.corpus.folder import Folder, Settings

SECOND = np.zeros(RATE, np.float32)
GO_ON = SimpleNamespace(requested=0)


def test_without_options_it_is_eight_hours_by_hibari_on_all_cores(monkeypatch):
    monkeypatch.setattr(make_corpus.os, "sched_getaffinity", lambda process: set(range(3)))
    args = read(monkeypatch, make_corpus, "dir")
    assert (args.directory, args.hours, args.engine, args.voice, args.texts) == (Path("dir"), 8.0, "hibari", "", None)
    assert (args.held_back, args.noise_floor, args.seed, args.jobs) == (False, -60.0, 0, 3)


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("--hours=0.001", "hours", 0.001), ("--noise_floor=-120", "noise_floor", -120), ("--seed=0", "seed", 0),
        ("--noise_floor=-20", "noise_floor", -20), (f"--seed={2**32 - 1}", "seed", 2**32 - 1), ("--jobs=1", "jobs", 1),
        ("--held_back", "held_back", True), ("--texts=x", "texts", Path("x")), ("--engine=flite", "engine", "flite"),
    ],
)  # fmt: skip
def test_an_option_at_its_limit_is_taken(monkeypatch, option, name, value):
    assert getattr(read(monkeypatch, make_corpus, "dir", option), name) == value


@pytest.mark.parametrize(
    "options",
    [
        ["--hours=0"], ["--hours=-1"], ["--hours=inf"], ["--hours=nan"], ["--noise_floor=-120.1"],
        ["--noise_floor=-19.9"], ["--noise_floor=0"], ["--noise_floor=nan"], [f"--seed={2**32}"], ["--seed=-1"],
        ["--jobs=0"], ["--engine=flute"], ["--held_back", "--texts=x"], ["--nonsense"],
    ],
)  # fmt: skip
def test_options_out_of_range_or_that_exclude_each_other_end_with_code_2(monkeypatch, capsys, options):
    with pytest.raises(SystemExit) as end:
        read(monkeypatch, make_corpus, "dir", *options)
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert options[0].partition("=")[0] in said


# ---- which lines ----


@pytest.fixture
def folder(tmp_path):
    """Of six lines, none of them spoken."""
    settings = Settings("fake", "1.0", "alto", 0, -60.0, "0f")
    return Folder(tmp_path / "c", settings, {number: f"Line {number}." for number in (1, 2, 4, 5, 6, 7)})


def fill(monkeypatch, folder, seconds, reasons=(), stops_at=None):
    """Fill it with clips of a second; the lines that were given to be spoken, those left out, and what was asked."""
    asked, left_out, closed = {}, Counter(), []

    def make_clips(engine, lines, *rest):
        asked.update(lines=lines, rest=rest)
        try:
            for number, _ in lines:
                if number == stops_at:
                    return
                yield dict(reasons).get(number, SECOND)
        finally:
            closed.append(True)

    monkeypatch.setattr(make_corpus, "make_clips", make_clips)
    args = SimpleNamespace(hours=seconds / 3600, seed=3, noise_floor=-50.0, jobs=2)
    make_corpus.fill(folder, "engine", args, left_out, "stop")
    assert asked["rest"] == (3, -50.0, 2, "stop") and closed
    return [number for number, _ in asked["lines"]], dict(left_out)


@pytest.mark.parametrize(
    ("seconds", "made"), [(0.5, [1]), (1, [1]), (1.1, [1, 2]), (4, [1, 2, 4, 5]), (9, [1, 2, 4, 5, 6, 7])]
)
def test_lines_are_spoken_in_their_order_until_there_is_enough(monkeypatch, folder, seconds, made):
    assert fill(monkeypatch, folder, seconds) == ([1, 2, 4, 5, 6, 7], {})
    assert sorted(folder.lengths) == made


def test_what_is_left_out_is_counted_by_its_reason(monkeypatch, folder):
    reasons = {2: "silent", 4: "silent", 5: "not finite"}
    assert fill(monkeypatch, folder, 2, reasons)[1] == {"silent": 2, "not finite": 1}
    assert sorted(folder.lengths) == [1, 6]


def test_gaps_are_filled_however_much_there_is(monkeypatch, folder):
    """Lines that were left out are tried again; clips that were damaged are made again."""
    for number in (1, 5):
        folder.add(number, SECOND)
    assert fill(monkeypatch, folder, 1, {2: "silent"}) == ([2, 4, 6, 7], {"silent": 1})
    assert sorted(folder.lengths) == [1, 4, 5]


def test_who_is_stopped_speaks_no_further(monkeypatch, folder):
    assert fill(monkeypatch, folder, 9, stops_at=5) == ([1, 2, 4, 5, 6, 7], {})
    assert sorted(folder.lengths) == [1, 2, 4]


# ---- what is written and said ----


def test_the_folder_tells_how_it_was_made(folder, monkeypatch):
    engine = fake_engine.find("")
    monkeypatch.setattr(sys, "argv", ["tools/make_corpus.py", "a folder", "--hours=2"])
    make_corpus.finish(folder, engine, Counter())
    assert not (folder.path / "metadata.csv").exists()
    for number in (1, 4, 5):
        folder.add(number, np.zeros(2 * RATE * 360, np.int16)[: RATE * 12].astype(np.float32))
    make_corpus.finish(folder, engine, Counter({"silent": 2}))
    facts = json.loads((folder.path / "corpus.json").read_text())
    assert facts.pop("settings")["engine"] == "fake"
    assert facts == {
        "licence_of_engine": "none", "clips": 3, "hours": 0.01, "left_out": {"silent": 2},
        "command": "python tools/make_corpus.py 'a folder' --hours=2",
    }  # fmt: skip
    assert (folder.path / "metadata.csv").read_text() == "".join(f"fake-00000{n}|Line {n}.\n" for n in (1, 4, 5))


def said(folder, caplog, hours, stop=0, **left_out):
    caplog.set_level("INFO")
    make_corpus.say_result(folder, Counter(left_out), hours, SimpleNamespace(requested=stop))
    return caplog.messages


def test_the_result_is_said_with_what_was_left_out_and_what_is_missing(folder, caplog):
    with pytest.raises(UserError, match="none of the texts became a clip"):
        said(folder, caplog, 1)
    folder.lengths = {1: RATE * 1800, 2: RATE * 1800}
    result = f"{folder.path} holds 2 clips, 1.00 h of audio"
    caplog.clear()
    assert said(folder, caplog, 1.0, silent=2, long=1) == [
        "left out: 1 text(s) long",
        "left out: 2 text(s) silent",
        result,
    ]
    caplog.clear()
    assert said(folder, caplog, 1.01) == ["the texts are all used, and make less than the 1.01 h of --hours", result]
    caplog.clear()
    assert said(folder, caplog, 1.01, stop=15) == ["stopped by a signal; the same command goes on from here", result]
    folder.lengths = {}
    assert said(folder, caplog, 1.0, stop=15)[-1].endswith("holds 0 clips, 0.00 h of audio")


def test_settings_are_those_of_the_run_and_the_texts_with_their_numbers(tmp_path):
    args = SimpleNamespace(directory=tmp_path / "c", seed=7, noise_floor=-50.0)
    found = make_corpus.open_folder(args, fake_engine.find(""), {1: "One.", 3: "Three."})
    digest = hashlib.sha256(b"1|One.\n3|Three.").hexdigest()
    assert found.settings == Settings("fake", "1.0", "alto", 7, -50.0, digest)
    assert (found.path, found.texts) == (tmp_path / "c", {1: "One.", 3: "Three."})


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The program with clips of 2 s for each of its lines; (the clock's looks, what it was asked)."""
    (tmp_path / "texts.txt").write_text("One.\nTwo.\nThree.\n")
    asked = SimpleNamespace(loaded=[], stop=SimpleNamespace(requested=0), signals=None, fails=False)

    def load(voice):
        return lambda *given: asked.loaded.append(given)

    def make_clips(engine, lines, *_):
        for number, _ in lines:
            if asked.fails and number == 3:
                raise UserError("line 3: hoarse")
            yield np.tile(SECOND, 2)

    def stop_signal(*numbers):
        asked.signals = numbers
        return asked.stop

    clock = iter(range(100, 10000, 4))
    monkeypatch.setattr(make_corpus, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(make_corpus, "ENGINES", {"hibari": lambda v: make_corpus.Engine("fake", "1", v, "none", load)})
    monkeypatch.setattr(make_corpus, "make_clips", make_clips)
    monkeypatch.setattr(make_corpus, "StopSignal", stop_signal)
    monkeypatch.setattr(make_corpus, "open_log", lambda *_, **__: None)

    def run(*options):
        monkeypatch.setattr(
            sys, "argv", ["make_corpus", str(tmp_path / "c"), f"--texts={tmp_path / 'texts.txt'}", *options]
        )
        make_corpus.main()
        return asked

    run.asked = asked
    return run


def test_the_speed_is_of_what_was_made_now(main, caplog, tmp_path):
    caplog.set_level("INFO")
    asked = main(f"--hours={3 / 3600}")
    assert asked.loaded == [("Hello.", 0)]  # what is wrong with the engine comes out before anything is made
    assert asked.signals == (signal.SIGINT, signal.SIGTERM)
    assert caplog.messages[-1] == "made 2 clips in 4 s, 1 times as fast as they are spoken"
    caplog.clear()
    main()
    assert caplog.messages[0] == f"{tmp_path / 'c'} holds 2 clips, 0.00 h of audio, already"
    assert caplog.messages[-1] == "made 1 clips in 4 s, 0 times as fast as they are spoken"
    caplog.clear()
    main()
    assert not any(message.startswith("made") for message in caplog.messages)


def test_clips_are_made_with_voice_seed_and_noise_of_the_options(main, tmp_path):
    main("--voice=bass", "--seed=3", "--noise_floor=-50")
    settings = json.loads((tmp_path / "c/corpus.json").read_text())["settings"]
    assert (settings["voice"], settings["seed"], settings["noise_floor"]) == ("bass", 3, -50)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_code(main, number):
    main.asked.stop.requested = number
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 128 + number


def test_whatever_ends_it_what_is_there_can_be_used(main, tmp_path):
    main.asked.fails = True
    with pytest.raises(UserError, match="line 3: hoarse"):
        main()
    assert (tmp_path / "c/metadata.csv").read_text() == "fake-000001|One.\nfake-000002|Two.\n"
    assert json.loads((tmp_path / "c/corpus.json").read_text())["clips"] == 2
