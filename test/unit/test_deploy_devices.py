"""Several devices at once: the work is split, and whatever happens to one of them ends and is said."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest
from deploy_toys import FAKE, make, report_of, run_infer, run_script

from common import log
from common.program import UserError
from conftest import ROOT, script_environment
from tools.deploy.artifacts import read_contents
from tools.deploy.infer_python import devices
from tools.deploy.infer_python.requests import Request
from tools.deploy.infer_python.worker import Ready, Work

two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is one device")


@two_cores
def test_devices_share_the_work(tmp_path):
    options = ["--devices=1,0", "--num_iters=5", "--warmup_iters=1", "-o", str(tmp_path)]
    done = run_infer("force_float32", "1", "20", *options)
    assert done.returncode == 0, done.stderr
    report = report_of(done.stdout)
    assert list(report) == ["dev[1]", "dev[0]", "sum"]
    assert [report[name]["Iterations"] for name in report] == [3, 2, 5]
    for name in ("tacotron2_items_per_sec average", "Throughput average (samples/sec)"):
        assert report["sum"][name] == pytest.approx(report["dev[0]"][name] + report["dev[1]"][name], rel=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["dev0_0.wav", "dev1_0.wav"]


def test_devices_on_cards(tmp_path, cards):
    (tmp_path / "a.txt").write_text("Hello.\nHow are you?\nBye.\n")
    for options, batches, wavs in (
        (["--num_iters=3", "--warmup_iters=0"], [2, 1, 3], ["dev0_0.wav", "dev0_1.wav", "dev1_0.wav", "dev1_1.wav"]),
        (["--text=a.txt"], [1, 1, 2], ["out_0001.wav", "out_0002.wav", "out_0003.wav"]),
    ):
        done = run_on_cards(cards, *options, "-o", "wavs", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        report = report_of(done.stdout)
        assert list(report) == ["dev[0]", "dev[1]", "sum"]
        assert [fields["Iterations"] for fields in report.values()] == batches
        assert "MagicMind on MLU, card 1" in done.stdout
        assert sorted(path.name for path in (tmp_path / "wavs").glob("*.wav")) == wavs
        shutil.rmtree(tmp_path / "wavs")


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """Engines for MagicMind's stand-in, which has two cards wherever it runs."""
    folder = tmp_path_factory.mktemp("cards")
    make(folder, "magicmind")
    return folder


ON_CARDS = ["force_float32", "2", "20", "--engine=magicmind", "--devices=0,1"]


def run_on_cards(cards, *options, cwd):
    return run_script(
        "infer_python/run.sh", *ON_CARDS, *options, f"--models_dir={cards}", cwd=cwd, PYTHONPATH=str(FAKE)
    )


def works(cards, sentences=3):
    contents = read_contents(cards, "magicmind", "")
    clip = Request("Hello.", 1, cards / "unused.wav")
    return [Work(cards, contents, i, 2, [], [[clip]] * sentences, 0.6, with_waveglow=False) for i in range(2)]


@pytest.mark.usefixtures("no_process_left")
def test_a_process_that_dies_ends_the_others(monkeypatch, cards):
    monkeypatch.setattr(devices, "_process", die_or_wait)
    with pytest.raises(UserError, match="device 1: its process ended with code -9"):
        devices.run_on_devices(works(cards))


def die_or_wait(work, connection):
    if work.device == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    connection.recv()


def test_all_begin_to_count_together(monkeypatch):
    """A device that is warm waits for those that are not."""
    pipes = [multiprocessing.Pipe() for _ in range(2)]
    process = SimpleNamespace(terminate=lambda: None, join=lambda seconds: None, kill=lambda: None)
    monkeypatch.setattr(devices, "_start", lambda work: (pipes[work.device][0], process))
    heard = devices._together([SimpleNamespace(device=0), SimpleNamespace(device=1)])
    for device, told in ((0, [False, False]), (1, [True, True])):
        for message in (Ready(), "the next one"):
            pipes[device][1].send(message)
            assert next(heard) == (device, message)
        assert [theirs.poll() for _, theirs in pipes] == told
    heard.close()


def test_a_process_that_does_not_end_is_killed(monkeypatch):
    """As one whose driver does not come back: it was told to end, and had its time."""
    did = []
    process = SimpleNamespace(**{
        name: partial(lambda name, *_: did.append(name), name) for name in ("terminate", "join", "kill")
    })  # fmt: skip
    monkeypatch.setattr(devices, "_start", lambda work: (work.device, process))
    monkeypatch.setattr(devices, "wait", lambda connections, seconds: [])
    with pytest.raises(UserError, match="device 0, 1: not a word for"):
        next(devices._together([SimpleNamespace(device=0), SimpleNamespace(device=1)]))
    assert did == ["terminate"] * 2 + ["join", "kill"] * 2


@pytest.mark.parametrize(
    ("fails", "sends", "shows"),
    [
        (None, "None", ""),
        (UserError("no such graph"), "no such graph", ""),
        (ZeroDivisionError("by zero"), "this is a bug, see above", "ZeroDivisionError: by zero"),
        (EOFError(), None, ""),
        (BrokenPipeError(), None, ""),
    ],
)
def test_a_process_says_how_it_ended(monkeypatch, capsys, fails, sends, shows):
    """Of a bug where it is; nothing if nobody is left to hear it."""
    did = []

    def do(work):
        yield "a card"
        yield Ready()
        if fails:
            raise fails
        yield "a batch"

    connection = SimpleNamespace(send=lambda message: did.append(message), recv=lambda: did.append("waits"))
    monkeypatch.setattr(devices, "do", do)
    devices._process(None, connection)
    ends = [] if sends is None else [sends]
    assert [str(each) for each in did] == ["a card", str(Ready()), "waits", *([] if fails else ["a batch"]), *ends]
    assert shows in (said := capsys.readouterr().err) and bool(said) == bool(shows)


def test_who_waits_is_told_how_far_it_is(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(log, "TELL_EVERY", 0.01)
    told = ["loading the engines and warming up: ", "spoke 0 of 2 batches: ", "spoke 1 of 2 batches: "]

    def until(says):
        limit = time.monotonic() + 60
        while says not in caplog.text and time.monotonic() < limit:
            time.sleep(0.01)

    def slow(works):
        for work in works:
            caplog.clear()
            until(told[0])  # for each device that loads
            yield work.device, Ready()
        until(told[1])
        yield works[0].device, object()  # an iteration
        until(told[2])

    monkeypatch.setattr(devices, "_together", slow)
    devices.run_on_devices([SimpleNamespace(device=device, batches=[[]]) for device in (0, 1)])
    assert [says for says in told if says in caplog.text] == told


@pytest.mark.usefixtures("no_process_left")
def test_devices_without_a_word_are_given_up(monkeypatch, cards):
    monkeypatch.setattr(devices, "_process", hang)
    monkeypatch.setattr(devices, "LONGEST_SILENCE", 0.1)
    monkeypatch.setattr(devices, "LONGEST_END", 0.5)
    with pytest.raises(UserError, match="device 0, 1: not a word for"):
        devices.run_on_devices(works(cards))


def hang(work, connection):
    """As a driver does that does not come back: also SIGTERM does not end it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


@pytest.mark.parametrize(("number", "whole_group", "code"), [(signal.SIGINT, True, 130), (signal.SIGKILL, False, -9)])
@pytest.mark.slow
def test_who_is_stopped_leaves_no_process_and_no_traceback(tmp_path, cards, number, whole_group, code):
    """Ctrl-C goes to all processes of a terminal; a kill to the first one, whose children have to notice."""
    command = [
        sys.executable,
        "-m",
        "tools.deploy.infer_python.infer",
        "--num_iters=1000000",
        "-o",
        str(tmp_path / "wavs"),
    ]
    command += ["--engine=magicmind", "--devices=0,1", f"--models_dir={cards}", "--no-waveglow", "--warmup_iters=0"]
    environment = script_environment() | {"PYTHONPATH": f"{ROOT}:{FAKE}", "PYTHONUNBUFFERED": "1"}
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=listen_to_ctrl_c, env=environment,
    )  # fmt: skip
    limit = threading.Timer(240, os.killpg, (running.pid, signal.SIGKILL))
    limit.start()
    wanted = {"device 0: MagicMind on MLU, card 0\n", "device 1: MagicMind on MLU, card 1\n"}
    while wanted:  # lines on what is run and how long it takes may come between
        line = running.stdout.readline()
        assert line, "it has ended"
        wanted -= {line}
    if whole_group:
        os.killpg(running.pid, number)
    else:
        running.send_signal(number)
    said, _ = running.communicate(timeout=500)  # which waits for the last process that could say something
    limit.cancel()
    assert running.returncode == code
    assert said == ""


def listen_to_ctrl_c():
    """A shell in the background has its programs ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_at_a_start_is_left_to_this_process_alone(monkeypatch):
    """The process that starts inherits what is ignored; afterwards Ctrl-C means here what it did before."""
    at_start = []

    class Process:
        def __init__(self, **_):
            pass

        def start(self):
            at_start.append(signal.getsignal(signal.SIGINT))

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Process)
    monkeypatch.setattr(devices.multiprocessing, "get_context", lambda kind: context)
    before = signal.getsignal(signal.SIGINT)
    devices._start(None)
    assert at_start == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) == before
