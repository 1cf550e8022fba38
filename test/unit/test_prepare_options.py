"""tools/prepare_data.py: its options on both sides of their limits, and what it passes on."""

import json
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_lines import read

from common.program import UserError
from tools import prepare_data
from tools.prepare.convert import Recipe
from tools.prepare.sources import Item, Source


def test_without_options_it_is_the_recipe(monkeypatch):
    monkeypatch.setattr(prepare_data.os, "sched_getaffinity", lambda process: set(range(3)))
    args, recipe = read(monkeypatch, prepare_data, "from", "to"), Recipe()
    assert (args.source, args.target, args.jobs, args.dry_run) == (Path("from"), Path("to"), 3, False)
    given = (args.level, args.trim_margin, args.min_seconds, args.max_seconds)
    assert given == (recipe.level, recipe.margin, recipe.shortest, recipe.longest) == (-20.0, 0.1, 0.5, 15.0)
    assert (args.columns, args.encoding, args.audio, args.speaker, args.config) == ("", "", None, None, None)


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("--level=-60", "level", -60), ("--level=0", "level", 0), ("--level=keep", "level", None),
        ("--trim_margin=0", "trim_margin", 0), ("--trim_margin=10", "trim_margin", 10),
        ("--trim_margin=keep", "trim_margin", None), ("--min_seconds=0", "min_seconds", 0),
        ("--max_seconds=0.6", "max_seconds", 0.6), ("--jobs=1", "jobs", 1),
    ],
)  # fmt: skip
def test_an_option_at_its_limit_is_taken(monkeypatch, option, name, value):
    assert getattr(read(monkeypatch, prepare_data, "from", "to", option), name) == value


@pytest.mark.parametrize(
    "option",
    [
        "--level=-60.1", "--level=0.1", "--level=3", "--level=nan", "--level=loud", "--trim_margin=-1",
        "--trim_margin=-0.1", "--trim_margin=10.1", "--trim_margin=nan",
        "--min_seconds=-0.1", "--min_seconds=15", "--min_seconds=20", "--max_seconds=0.5", "--max_seconds=inf",
        "--max_seconds=nan", "--jobs=0",
    ],
)  # fmt: skip
def test_options_out_of_range_end_with_code_2(monkeypatch, capsys, option):
    with pytest.raises(SystemExit) as end:
        read(monkeypatch, prepare_data, "from", "to", option)
    assert end.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


@pytest.fixture
def asked(monkeypatch):
    """What main passes on."""
    found = {"locked": False}

    @contextmanager
    def lock(path):
        found["locked"] = path
        yield

    def prepare(source, folder, recipe, config, args, stop):
        found.update(source=source, folder=folder, recipe=recipe, config=config, locked_then=found["locked"])

    monkeypatch.setattr(prepare_data, "open_log", lambda *_, **__: None)
    monkeypatch.setattr(prepare_data, "StopSignal", lambda *numbers: found.setdefault("stop", numbers))
    monkeypatch.setattr(prepare_data, "sole_writer", lock)
    monkeypatch.setattr(prepare_data, "find_source", lambda *given: found.update(given=given) or Source(facts=["x"]))
    monkeypatch.setattr(prepare_data, "of_one_speaker", lambda source, speaker: found.update(speaker=speaker) or source)
    monkeypatch.setattr(prepare_data, "prepare", prepare)
    return found


def test_all_that_it_is_told_is_used(tmp_path, monkeypatch, asked, caplog):
    caplog.set_level("INFO")
    (tmp_path / "c.json").write_text(json.dumps({"data_config": {"sampling_rate": 16000}}))
    options = [
        "--level=-30", "--trim_margin=0.2", "--min_seconds=1", "--max_seconds=9", "--audio=sounds",
        "--columns=name,text", "--encoding=cp1251", "--speaker=anna", f"--config={tmp_path / 'c.json'}",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    read(monkeypatch, prepare_data, "from", "to", *options)
    prepare_data.main()
    assert asked["recipe"] == Recipe(16000, -30.0, 0.2, 1.0, 9.0)
    assert asked["config"].sampling_rate == 16000
    assert asked["given"] == (Path("from"), Path("sounds"), "name,text", "cp1251")
    assert asked["speaker"] == "anna"
    assert asked["locked_then"] == Path("to") and (tmp_path / "to").is_dir()
    assert asked["stop"] == (signal.SIGINT, signal.SIGTERM)
    assert caplog.messages == ["x"]


def test_a_dry_run_makes_no_folder_and_locks_none(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    read(monkeypatch, prepare_data, "from", "to", "--dry_run")
    prepare_data.main()
    assert asked["recipe"] == Recipe() and asked["locked_then"] is False
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("source", "target", "apart"),
    [
        ("a", "b", True), ("a", "ab", True), ("a", "a", False), ("a", "a/b", False), ("a/b", "a", False),
        ("a", "link", False), ("a", "link/b", False),
    ],
)  # fmt: skip
def test_source_and_target_lie_apart(tmp_path, source, target, apart):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    if apart:
        prepare_data.check_apart(tmp_path / source, tmp_path / target)
    else:
        with pytest.raises(UserError, match=f"SOURCE .*{source} and TARGET .*{target} lies in the other"):
            prepare_data.check_apart(tmp_path / source, tmp_path / target)


def test_a_target_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make the folder .*file/data: Not a directory"):
        prepare_data.make_folder(tmp_path / "file/data")


def test_nothing_is_made_where_source_and_target_do_not_lie_apart(tmp_path, monkeypatch, asked):
    monkeypatch.setattr(sys, "argv", ["prepare_data", str(tmp_path), str(tmp_path / "inside")])
    with pytest.raises(UserError, match="lies in the other"):
        prepare_data.main()
    assert "recipe" not in asked and not (tmp_path / "inside").exists()


def test_speakers_are_named_by_the_number_of_their_clips(caplog):
    names = ["a"] * 3 + ["b"] * 4 + [""] * 2 + ["d"] * 5 + ["e"] * 6 + ["f"]
    source = Source([Item(Path(), "Text.", "", name) for name in names])
    assert prepare_data.of_one_speaker(source, None) is source
    said = "6 speakers (e 6, d 5, b 4, a 3, (none) 2), but a voice is one: choose it with --speaker=NAME"
    assert caplog.messages == [said]
    caplog.clear()
    assert len(prepare_data.of_one_speaker(Source(source.items[:3]), None).items) == 3
    assert not caplog.messages
    with pytest.raises(UserError, match="there is no speaker 'x'; there are none"):
        prepare_data.of_one_speaker(Source(), "x")
    many = Source([Item(Path(), "Text.", "", f"s{i:02}") for i in reversed(range(21))])
    with pytest.raises(UserError) as error:
        prepare_data.of_one_speaker(many, "x")
    assert str(error.value) == f"there is no speaker 'x'; there are {', '.join(f's{i:02}' for i in range(20))}"
