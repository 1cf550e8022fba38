"""How a program ends: the exit code of each way, one line that says why, and what is left for its launcher."""

import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common import program
from common.program import Parser, StopSignal, WriteError, first_line, is_of_a_peer, shown
from conftest import ROOT

HEAD = """
import os, signal, sys
from common import program
from common.program import Parser, UserError
class Busy(UserError):
    code = 75
def raises(error):
    raise error
"""


def end(main, *options, **environment):
    """A program with this expression as its ``main``."""
    code = f"{HEAD}\nprogram.run(lambda: {main}, may_be_rank={environment.pop('may_be_rank', False)})"
    own = {name: value for name, value in os.environ.items() if not program.OF_A_LAUNCH.fullmatch(name)}
    own.pop(program.LAUNCHER, None)
    return subprocess.run(
        [sys.executable, "-c", code, *options],
        cwd=ROOT,
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


WRAPPED = "Caught UserError in worker.\\nTraceback:\\n  File\\ncommon.program.UserError: a.wav\\n  is bad"


@pytest.mark.parametrize(
    ("main", "code", "errors"),
    [
        ("None", 0, ""),
        ("raises(UserError('a reason\\n   and more'))", 1, "error: a reason and more\n"),
        ("raises(Busy('another run'))", 75, "error: another run\n"),
        (f"raises(UserError('''{WRAPPED}'''))", 1, "error: a.wav is bad\n"),
        ("raises(KeyboardInterrupt)", 130, ""),
        ("sys.exit(5)", 5, ""),
        ("Parser('', '').parse_args(['--x'])", 2, "error: unrecognized arguments: --x (--help lists the options)\n"),
    ],
)
def test_each_end_has_its_code_and_at_most_one_line(main, code, errors):
    done = end(f"[print('result'), {main}]")
    assert (done.returncode, done.stdout, done.stderr) == (code, "result\n", errors)
    # A rank ends without Python's own end, and what it has printed is not lost.
    done = end(f"[print('result'), {main}]", WORLD_SIZE="2", may_be_rank=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "result\n", errors)


def test_a_rank_s_last_words_need_no_end_of_line():
    half = "[print('half', end='', file=file) for file in (sys.stdout, sys.stderr)]"
    done = end(half, WORLD_SIZE="2", may_be_rank=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "half", "half")


def test_a_mistake_of_the_program_shows_where_it_is():
    done = end("raises(ValueError('a\\nb'))")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ValueError: a b\nTraceback (most") and done.stderr.endswith(
        "ValueError: a\nb\n"
    )


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_user_s_mistake_shows_where_it_is_if_that_is_wanted(debug):
    lines = end("raises(UserError('a reason'))", *debug).stderr.splitlines()
    assert lines[0] == "error: a reason" and (len(lines) > 1) == bool(debug)


@pytest.mark.parametrize("main", ["None", "raises(Busy())", "raises(KeyboardInterrupt)", "sys.exit(3)", "1 / 0"])
def test_what_is_held_is_let_go_at_every_end(main):
    done = end(f"[program.at_end.callback(print, 'let go'), {main}]")
    assert done.stdout == "let go\n"


LEFT = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
        "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"]  # fmt: skip
OTHERS = ["MASTER", "RANKS", "MY_RANK", "TORCH_HOME"]


@pytest.mark.parametrize("may_be_rank", [True, False])
def test_one_that_is_never_a_rank_forgets_a_launch(may_be_rank):
    environment = dict.fromkeys(LEFT + OTHERS, "7")
    done = end("print(*os.environ)", may_be_rank=may_be_rank, **environment)
    assert set(LEFT + OTHERS) & set(done.stdout.split()) == set(OTHERS + LEFT * may_be_rank)


# ---- beside common/launch.py ----

SIGNAL_AT_PARENT_S_END = "__import__('ctypes').CDLL(None).prctl(2, __import__('ctypes').byref(found))"
DYING = f"[found := __import__('ctypes').c_int(), {SIGNAL_AT_PARENT_S_END}, print(found.value)]"


@pytest.mark.skipif(sys.platform != "linux", reason="others cannot do that")
def test_a_rank_ends_with_its_launcher():
    """And with nothing else that has started it."""
    for launcher, expected in ((str(os.getpid()), signal.SIGKILL), (str(os.getppid()), 0)):
        done = end(DYING, may_be_rank=True, **{program.LAUNCHER: launcher})
        assert done.stdout == f"{int(expected)}\n", done.stderr


@pytest.mark.parametrize("is_launcher", [True, False])
@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ("raises(UserError('a  reason'))", {"message": "a reason", "by_peer": False, "code": 1}),
        ("raises(Busy('busy'))", {"message": "busy", "by_peer": False, "code": 75}),
        ("raises(OSError('gloo: closed'))", {"message": "OSError: gloo: closed", "by_peer": True, "code": 1}),
        ("raises(OSError('closed'))", {"message": "OSError: closed", "by_peer": False, "code": 1}),
        ("Parser('', '').parse_args(['x'])",
         {"message": "unrecognized arguments: x (--help lists the options)", "by_peer": False, "code": 2}),
    ],
)  # fmt: skip
def test_the_reason_is_left_for_the_launcher_which_shows_it(tmp_path, is_launcher, main, expected):
    """Another launcher, torchrun itself, shows none: then the rank does."""
    variables = {program.LAUNCHER: str(os.getpid() if is_launcher else 1), "WORLD_SIZE": "2"}
    path = tmp_path / "error.json"
    done = end(main, may_be_rank=True, TORCHELASTIC_ERROR_FILE=str(path), **variables)
    report = json.loads(path.read_text())
    assert report.pop("timestamp") > 1.7e9 and report == expected
    assert list(tmp_path.iterdir()) == [path]
    assert done.returncode == expected["code"]
    assert (done.stderr == "") == is_launcher
    assert is_launcher or done.stderr.startswith(f"error: {expected['message']}\n")


def test_a_report_that_cannot_be_written_is_shown(tmp_path):
    """The variable is of a launch that has ended."""
    variables = {program.LAUNCHER: str(os.getpid()), "TORCHELASTIC_ERROR_FILE": str(tmp_path / "gone/error.json")}
    assert end("raises(UserError('a reason'))", may_be_rank=True, **variables).stderr == "error: a reason\n"


# ---- what errors say ----


def test_the_first_line_of_an_error():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError" and first_line(ValueError("")) == "ValueError"
    assert str(WriteError(28, "No space left", "/a/b")) == "cannot write /a/b: No space left"


def test_values_are_shown_short():
    assert [shown(value) for value in (7, "a", None, {"a": 1}, [1, [2]])] == [
        "7",
        "'a'",
        "None",
        "{'a': 1}",
        "[1, [2]]",
    ]
    assert shown([[[[1]]]]) == "[[[...]]]"
    circle: list = []
    circle.append(circle)
    assert shown(circle) == "[[[...]]]"
    assert len(shown("x" * 10**6)) < 50 and len(shown(list(range(10**6)))) < 50
    assert len(shown(10**5000)) < 50  # of more digits than Python writes


def test_a_word_of_a_peer_is_found_behind_other_errors():
    peer = RuntimeError("Connection closed by gloo")
    for cause, context, expected in ((peer, None, True), (None, peer, True), (None, None, False)):
        error = ValueError("while exchanging gradients")
        error.__cause__, error.__context__ = cause, context
        outer = ValueError("outer")
        outer.__cause__ = error
        assert is_of_a_peer(outer) == expected
    assert is_of_a_peer(type("Own", (Exception,), {"__module__": "torch.distributed.elastic"})("anything"))
    assert not is_of_a_peer(type("Own", (Exception,), {"__module__": "torch.nn"})("anything"))
    assert not is_of_a_peer(None)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # torch_npu's, when another rank is gone
        ("InnerRunOpApi:OpParamMaker.cpp:281 OPS function error: HcclAllreduce, error code is 6", True),
        ("ERR00100 PTA call acl api failed\nEI0002: The wait execution of the Notify register times out.", True),
        ("EI0006: Getting socket times out. Reason: Remote Rank did not send the data in time.", True),
        ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer", True),
        ("NPU out of memory. Tried to allocate 2.00 GiB", False),
        ("EZ9999: Inner Error!", False),
    ],
)
def test_an_error_that_only_says_that_another_rank_is_gone(message, expected):
    try:
        try:
            raise RuntimeError(message)
        except RuntimeError as error:
            raise ValueError("while exchanging gradients") from error
    except ValueError as error:
        assert is_of_a_peer(error) == expected


# ---- options and signals ----


def test_options_are_written_out_and_help_shows_examples(capsys):
    parser = Parser("what it does", "  one\n  two")
    parser.add_argument("--output")
    assert parser.parse_args(["--output=a"]).debug is False and parser.parse_args(["--debug"]).debug is True
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--out=a"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --out=a (--help lists the options)\n"
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0 and "what it does\n" in said and re.search(r"^examples:\n  one\n  two$", said, re.M)


def test_a_signal_is_remembered_by_its_number():
    stop = StopSignal(signal.SIGUSR1, signal.SIGUSR2)
    try:
        assert stop.requested == 0
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.raise_signal(number)
            assert stop.requested == number
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_elsewhere_than_on_linux_nothing_is_asked_of_the_system(monkeypatch):
    monkeypatch.setattr(program, "ctypes", SimpleNamespace(CDLL=lambda name: pytest.fail("it is asked")))
    monkeypatch.setattr(sys, "platform", "darwin")
    program.end_with_parent()
