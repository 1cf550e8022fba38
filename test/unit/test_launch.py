"""The launcher around torchrun: where processes meet and how long they are waited for."""

import json
import os
import signal
import socket
import sys
import weakref
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore, run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from common import launch
from common.launch import choose_port, first_failure, hang_limit
from common.program import UserError


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ([], 1800), (["--data_path=a"], 1800), (["--hang_limit=100"], 100), (["--hang_limit=30"], 30),
        (["--hang_limit=29"], 30), (["--hang_limit=0"], 30), (["--hang_limit=40", "--hang_limit=50"], 50),
        (["--hang_limit=often"], 1800), (["--hang_limit="], 1800),
    ],
)  # fmt: skip
def test_other_machines_are_waited_for_as_long_as_the_program_says(options, limit):
    """But at least until a line about it is due; the program itself refuses what is no number."""
    assert hang_limit(options) == limit


@pytest.mark.parametrize(
    ("options", "port", "is_standalone"),
    [
        ([], None, True), (["--nnodes=1"], None, True), (["--master_port=5000"], 5000, False),
        (["--nnodes=2"], 29500, False), (["--nnodes=2", "--master_port=5000"], 5000, False),
        (["--standalone"], None, True), (["--rdzv_backend=c10d", "--rdzv_endpoint=a:1"], None, False),
        (["--nnodes=1:2"], 29500, False), (["--nnodes=1:1"], None, True), (["--rdzv_endpoint=a:1"], None, False),
        (["--standalone", "--master_port=5000"], None, True), (["--rdzv_backend=c10d"], None, False),
    ],
)  # fmt: skip
def test_a_port_is_only_chosen_where_torchrun_finds_none(options, port, is_standalone):
    parser = run.get_args_parser()
    parser.set_defaults(master_port=None)
    args = parser.parse_args([*options, "train.py"])
    assert choose_port(args) == port
    assert args.standalone == is_standalone
    assert args.local_addr == (
        "localhost" if port is None and is_standalone and "--standalone" not in options else None
    )
    assert args.master_port == (5000 if "--master_port=5000" in options else 29500)


def test_an_address_that_the_user_names_for_this_machine_stays():
    parser = run.get_args_parser()
    parser.set_defaults(master_port=None)
    args = parser.parse_args(["--local_addr=10.0.0.7", "train.py"])
    assert choose_port(args) is None
    assert args.standalone and args.local_addr == "10.0.0.7"


def test_a_lone_machine_waits_for_no_other(monkeypatch):
    monkeypatch.setattr(launch.meeting, "connect", lambda *_: pytest.fail("it waits"))
    for nnodes, backend, endpoint in (("1", "static", ""), ("2", "c10d", ""), ("2", "static", "a:1")):
        args = SimpleNamespace(nnodes=nnodes, rdzv_backend=backend, rdzv_endpoint=endpoint)
        assert launch.meet_other_machines(args) is None


@pytest.fixture
def machines(monkeypatch):
    """Two machines, the other one's launcher has come; a function that lets this one meet it."""
    store, asked = HashStore(), []
    monkeypatch.setattr(launch.meeting, "connect", lambda *args: (asked.append(args), store)[1])

    def meet(number, nnodes="2", others="2", options=()):
        store.set(f"facts/{1 - number}", json.dumps({"--nnodes": others}))
        store.add(f"here/{1 - number}", 1)
        args = SimpleNamespace(
            nnodes=nnodes, rdzv_backend="static", rdzv_endpoint="", node_rank=str(number), master_addr="far",
            master_port=5000, training_script_args=list(options),
        )  # fmt: skip
        assert launch.meet_other_machines(args) is store
        assert json.loads(store.get(f"facts/{number}")) == {"--nnodes": nnodes}
        return asked[-1]

    return meet


def test_machines_meet_at_the_first_one(machines, capsys):
    """Which has the store, and waits for the others as long as they for it."""
    for number in (0, 1):
        *where, say = machines(number, options=[f"--hang_limit={70 + number}"])
        assert where == ["far", 5000, number == 0, 70 + number]
    say("waits")
    assert capsys.readouterr().err == "waits\n"


def test_as_many_machines_as_may_come_are_waited_for(machines):
    machines(0, "1:2", "1:2")


def test_machines_that_were_told_of_other_numbers_do_not_begin(machines):
    expected = "the processes disagree: --nnodes is '2' on rank 0, '3' on rank 1: start all of them with the same --nno"
    with pytest.raises(UserError, match=expected):
        machines(0, "2", "3")


@pytest.fixture
def launched(monkeypatch, capsys):
    """Runs main, with a function in the place of torchrun's: exit code, errors, what torchrun got."""
    for name in ("OMP_NUM_THREADS", launch.LAUNCHER, "PET_MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(launch, "logging", SimpleNamespace(disable=lambda level: None, CRITICAL=50))

    def start(*options, does=lambda args: None):
        got = []
        monkeypatch.setattr(run, "run", lambda args: (got.append(args), does(args)))
        code = launch.main([*options])
        return code, capsys.readouterr().err, got

    return start


def raises(error):
    def fail(args):
        raise error

    return fail


def failed(code, report=None):
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="")
    failure.error_file_data, failure.message = report or {}, "what\n happened"
    return failure


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (UserError("a reason"), 1, "error: a reason\n"),
        (ChildFailedError("x", {3: failed(7)}), 7, "error: rank 3 failed: what happened\n"),
        (ChildFailedError("x", {0: failed(-9)}), 137, "error: rank 0 failed: what happened\n"),
        (ChildFailedError("x", {0: failed(-15, {"code": 75})}), 75, "error: rank 0 failed: what happened\n"),
        (SignalException("x", signal.SIGTERM), 143, "error: stopped by SIGTERM\n"),
        (SignalException("x", signal.SIGINT), 130, "error: stopped by SIGINT\n"),
        (OSError("no\nsuch thing"), 1, "error: the processes did not start: no such thing\n"),
    ],
)
def test_every_end_has_its_code_and_one_line(launched, error, code, line):
    assert launched("train.py", does=raises(error) if error else lambda args: None)[:2] == (code, line)


def test_the_ranks_learn_who_their_launcher_is(launched):
    seen = []
    launched("train.py", "--an=option", does=lambda args: seen.append(os.environ[launch.LAUNCHER]))
    assert seen == [str(os.getpid())]


def test_torchrun_gets_the_program_and_its_options(launched):
    ((args,),) = [launched("--nproc_per_node=2", "--max_restarts=3", "train.py", "--nnodes=9", "x")[2]]
    assert (args.training_script, args.training_script_args) == ("train.py", ["--nnodes=9", "x"])
    assert (args.nproc_per_node, args.max_restarts, args.nnodes) == ("2", 3, "1:1")


def test_a_port_that_is_taken_is_said_on_the_first_machine(launched, monkeypatch):
    monkeypatch.setattr(launch, "meet_other_machines", lambda args: None)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--nnodes=2", f"--master_port={port}", "train.py"]
        code, said, got = launched("--node_rank=0", *options)
        assert (code, said, got) == (1, f"error: port {port} is taken: choose another --master_port\n", [])
        assert launched("--nproc_per_node=2", f"--master_port={port}", "train.py")[:2] == (code, said)
        assert launched("--node_rank=1", *options)[0] == 0  # there it is another machine's
        monkeypatch.setenv("PET_MASTER_PORT", str(port))
        assert launched("--nnodes=2", "train.py")[:2] == (code, said)
    assert launched("--node_rank=0", *options)[0] == 0


def test_a_port_that_was_used_a_moment_ago_is_free():
    """The system keeps it from others for a minute, in which a run may be started again."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's own
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not launch.port_is_free(port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # who closes first has to wait
            assert client.recv(1) == b""
    assert launch.port_is_free(port)


def test_wrong_options_of_the_program_end_it_before_it_is_started(launched, monkeypatch):
    seen = []

    def read_arguments(given):
        seen.append(given)
        if "--wrong" in given:
            sys.exit(2)

    monkeypatch.setitem(sys.modules, "a_program", SimpleNamespace(read_arguments=read_arguments))
    monkeypatch.setitem(sys.modules, "another", SimpleNamespace())
    with pytest.raises(SystemExit) as end:
        launched("-m", "a_program", "--wrong", does=lambda args: pytest.fail("it is started"))
    assert end.value.code == 2
    assert launched("-m", "a_program", "--right")[0] == 0
    assert seen == [["--wrong"], ["--right"]]
    assert launched("-m", "another", "--any")[0] == 0


def test_what_other_machines_miss_ends_it(launched, monkeypatch):
    monkeypatch.setattr(launch, "meet_other_machines", raises(UserError("machine 0 waited")))
    code, said, got = launched("train.py")
    assert (code, said, got) == (1, "error: machine 0 waited\n", [])


def test_the_store_of_the_machines_is_there_as_long_as_they_run(launched, monkeypatch):
    """On the first machine it ends with its last name."""
    served = []

    def meet(args):
        served.append(weakref.ref(store := HashStore()))
        return store

    monkeypatch.setattr(launch, "meet_other_machines", meet)
    seen = []
    launched("train.py", does=lambda args: seen.append(served[0]() is not None))
    assert seen == [True]


def test_a_user_s_number_of_threads_stays(launched, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    launched("train.py")
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(("cores", "processes", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 3, "1")])
def test_processes_share_the_cores(monkeypatch, cores, processes, threads):
    for name in ("OMP_NUM_THREADS", launch.LAUNCHER):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(launch, "torch", SimpleNamespace(get_num_threads=lambda: cores))
    monkeypatch.setattr(launch, "logging", SimpleNamespace(disable=lambda level: None, CRITICAL=50))
    monkeypatch.setattr(run, "run", lambda args: None)
    assert launch.main([f"--nproc_per_node={processes}", "train.py"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == threads


def test_who_failed_first_in_each_order():
    """One that reports its own error, before one that is killed, before one that lost another, before the stopped."""

    def failure(code, time, **report):
        return SimpleNamespace(exitcode=code, timestamp=time, error_file_data=report)

    kinds = [
        failure(1, 9, timestamp=9), failure(-signal.SIGKILL, 8), failure(1, 7, timestamp=7, by_peer=True),
        failure(-signal.SIGTERM, 6),
    ]  # fmt: skip
    for i, first in enumerate(kinds):
        for later in kinds[i + 1 :]:
            assert first_failure({0: later, 1: first}) == (1, first) and first_failure({0: first, 1: later})[0] == 0
        twin = SimpleNamespace(**vars(first) | {"timestamp": 5})
        if "timestamp" in first.error_file_data:
            twin.error_file_data = first.error_file_data | {"timestamp": 5}
        assert first_failure({0: first, 1: twin})[0] == 1
    # What counts is when it was reported, not when the launcher saw it.
    assert first_failure({0: failure(1, 5, timestamp=9), 1: failure(1, 6, timestamp=8)})[0] == 1
