"""Where lines of the log and progress bars go, and when long work is said to go on."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import log
from conftest import ROOT

PROGRAM = """
import logging, os, sys
from common import log
if sys.argv[2] != "loud":
    sys.stderr.isatty = lambda: True
    log.console.__init__()
from pathlib import Path
path = Path(sys.argv[1]) if sys.argv[1] else None
log.open_log(path, quiet=sys.argv[2] == "quiet", only_warnings=sys.argv[2] == "warnings")
for name in ("__main__", "common.a", "waveglow.b", "tacotron2.c", "tools.d", "another"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(name).log(level, "%s %s", logging.getLevelName(level), name)
print("printed")
print("printed as an error", file=sys.stderr)
sys.stdout.flush()
os.system("echo from below; echo from below as an error >&2")
for _ in log.with_progress(range(3), "progress"):
    pass
"""
OURS = ["__main__", "common.a", "waveglow.b", "tacotron2.c", "tools.d"]
ALL = ["DEBUG", "INFO", "WARNING", "ERROR"]
PRINTED = ["printed", "printed as an error", "from below", "from below as an error"]


def run(path, how):
    """The lines of the terminal's output, of its errors, and of the file."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), how], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr, Path(path).read_text().splitlines() if path else None


def lines(*levels):
    """Of all loggers; others than ours say no DEBUG."""
    return [f"{level} {name}" for name in [*OURS, "another"] for level in ALL
            if level in levels and (level != "DEBUG" or name in OURS)]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "out", "errors"),
    [("loud", ["INFO"], ["WARNING", "ERROR"]), ("warnings", [], ["WARNING", "ERROR"]), ("quiet", [], [])],
)
def test_the_file_has_everything_and_the_terminal_what_is_its_own(tmp_path, how, out, errors):
    found = run(tmp_path / "logs/of/it", how)
    assert (found[0], found[1].splitlines()) == (lines(*out), lines(*errors))
    assert [line for line in found[2] if line not in PRINTED] == lines(*ALL)
    assert sorted(line for line in found[2] if line in PRINTED) == sorted(PRINTED)


@pytest.mark.parametrize(("how", "out", "has_bar"), [("loud", ["DEBUG", "INFO"], False), ("terminal", ["INFO"], True)])
def test_without_a_file_the_terminal_has_everything_but_beside_a_bar_no_single_steps(how, out, has_bar):
    found_out, errors, _ = run("", how)
    assert [line for line in found_out if line not in PRINTED] == lines(*out)
    assert [line for line in errors.splitlines() if line in lines(*ALL)] == lines("WARNING", "ERROR")
    assert ("progress" in errors) == has_bar


@pytest.mark.parametrize("how", ["warnings", "quiet"])
def test_without_a_file_other_ranks_say_warnings_alone(how):
    found = run("", how)
    assert [line for line in found[0] if line not in PRINTED] == []
    assert [line for line in found[1].splitlines() if line not in PRINTED] == lines("WARNING", "ERROR")


@pytest.mark.parametrize("how", ["terminal", "quiet", "warnings", "loud"])
def test_a_bar_is_shown_by_the_first_rank_of_the_first_machine_on_a_terminal(tmp_path, how):
    """And does not go into the log."""
    _, errors, file = run(tmp_path / "log", how)
    assert ("progress" in errors) == (how == "terminal") and "progress" not in "".join(file)


@pytest.fixture
def console(monkeypatch):
    console = log.Console()
    console.out, console.err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(log, "console", console)
    return console


@pytest.mark.parametrize("shows", [True, False])
def test_bars_stand_where_they_are_wanted(console, shows):
    console.shows_progress = shows
    assert list(log.with_progress(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    said = console.err.getvalue()
    assert (said == "") != shows and (not shows or ("reading" in said and "/3 [" in said))
    assert said == "" or said.endswith("\r")  # it does not stay
    with log.progress_bar("training", total=50, initial=7) as bar:
        bar.update(2)
        assert shows is False or (bar.n, bar.total, bar.initial) == (9, 50, 7)
    said = console.err.getvalue()
    assert (said == "") != shows and (not shows or ("training" in said and "7/50" in said and said.endswith("\r")))
    assert console.out.getvalue() == ""


def record_of(text):
    return logging.makeLogRecord({"msg": text, "levelno": logging.INFO})


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_a_terminal_that_went_away_is_not_written_to_again(console):
    for say in (console.say, lambda text: log._ConsoleHandler().emit(record_of(text))):
        console.out, console.shows_progress = Gone(), True
        say("a line")
        assert console.out is console.err and console.out.name == os.devnull and not console.shows_progress
        nowhere = console.out
        console.say("another line")
        assert console.out is nowhere  # which takes it
        nowhere.close()


def test_a_line_of_the_console_is_there_at_once(console, monkeypatch):
    flushed = []
    monkeypatch.setattr(console.out, "flush", lambda: flushed.append(console.out.getvalue()), raising=False)
    console.say("a result")
    assert flushed == ["a result\n"]


# ---- long work ----


class Days:
    """A clock, and in the place of threads and events ones that let it go on, until ``ends``."""

    def __init__(self, ends, lines=()):
        self.now, self.ends, self.lines, self.waits = 1000.0, 1000.0 + ends, {1000.0 + each for each in lines}, []
        days = self

        class Event:
            def wait(self, seconds):
                days.waits.append(seconds)
                days.now += seconds
                for line in sorted(days.lines):
                    if line <= days.now:
                        log.console.last_line = line
                return days.now > days.ends

            def set(self):
                pass

        class Thread:
            def __init__(self, target, daemon):
                assert daemon
                self.start = target

            def join(self):
                pass

        self.threading = SimpleNamespace(Event=Event, Thread=Thread)


def still(monkeypatch, caplog, ends, doing="thinking", last_line=-60.0, lines=()):
    """When it says what, in seconds from the beginning."""
    days = Days(ends, lines)
    monkeypatch.setattr(log, "threading", days.threading)
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: days.now))
    monkeypatch.setattr(log, "console", SimpleNamespace(last_line=1000 + last_line))
    caplog.clear()
    with caplog.at_level("INFO"), log.still(doing):
        pass
    return caplog.messages


def test_ten_seconds_without_a_line_bring_one(monkeypatch, caplog):
    assert still(monkeypatch, caplog, 0.5) == []  # what is done in a second needs none
    assert still(monkeypatch, caplog, 1.5) == ["thinking: 1 s so far"]
    assert still(monkeypatch, caplog, 30) == [f"thinking: {seconds} s so far" for seconds in (1, 11, 21)]
    assert still(monkeypatch, caplog, 30, last_line=-3) == [f"thinking: {seconds} s so far" for seconds in (7, 17, 27)]
    assert still(monkeypatch, caplog, 30, last_line=0) == [f"thinking: {seconds} s so far" for seconds in (10, 20, 30)]


def test_a_line_that_comes_meanwhile_is_one(monkeypatch, caplog):
    assert still(monkeypatch, caplog, 30, last_line=0, lines=[4]) == ["thinking: 14 s so far", "thinking: 24 s so far"]
    assert still(monkeypatch, caplog, 30, last_line=0, lines=range(3, 30, 3)) == []


def test_what_is_done_may_change(monkeypatch, caplog):
    said = iter(["one of two", "two of two"])
    assert still(monkeypatch, caplog, 12, doing=lambda: next(said)) == [
        "one of two: 1 s so far",
        "two of two: 11 s so far",
    ]


def test_a_line_of_the_log_is_remembered(console, monkeypatch):
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: 77.0))
    log._ConsoleHandler().emit(record_of("a line"))
    assert console.last_line == 77 and console.out.getvalue() == "a line\n"
