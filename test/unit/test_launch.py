"""The launcher around torchrun: where processes meet and how long they are waited for."""

import os
import signal
from types import SimpleNamespace

import pytest
from torch.distributed import run

from common import launch
from common.launch import choose_port, first_failure, hang_limit


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


def test_a_lone_machine_waits_for_no_other(monkeypatch):
    monkeypatch.setattr(launch.meeting, "connect", lambda *_: pytest.fail("it waits"))
    for nnodes, backend, endpoint in (("1", "static", ""), ("2", "c10d", ""), ("2", "static", "a:1")):
        args = SimpleNamespace(nnodes=nnodes, rdzv_backend=backend, rdzv_endpoint=endpoint)
        assert launch.meet_other_machines(args) is None


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
