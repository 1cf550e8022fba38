"""Which log a process writes, how loud it is on the terminal, and what becomes of an earlier one."""

import os
from argparse import Namespace

import pytest

from common import options
from common.folder_lock import LOCK
from common.options import start_log
from common.program import LAUNCHER, UserError


@pytest.fixture
def did(monkeypatch):
    """What is done, in its order."""
    calls = []
    for name in ("hold_folder", "keep_earlier", "open_log"):
        monkeypatch.setattr(options, name, lambda *given, of=name, **how: calls.append((of, given, how)))
    return calls


def start_as(monkeypatch, rank=0, world_size=1, local_rank=0, launched=False, restarts=None):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", LAUNCHER, "TORCHELASTIC_RESTART_COUNT")
    values = (rank, world_size, local_rank, os.getppid() if launched else None, restarts)
    for name, value in zip(names, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("ranks", "number", "quiet", "only_warnings"),
    [
        (dict(), 3, False, False),  # a process alone has its card's
        (dict(rank=0, world_size=4, launched=True), 0, False, False),
        (dict(rank=1, world_size=4, local_rank=1, launched=True), 1, True, True),
        (dict(rank=1, world_size=4, local_rank=1), 1, False, True),  # nobody else says what it says
        (dict(rank=2, world_size=4, local_rank=0, launched=True), 2, False, True),  # the first of another machine
    ],
)
@pytest.mark.parametrize("to_a_file", [True, False])
def test_each_process_has_a_log_of_its_own(tmp_path, monkeypatch, did, ranks, number, quiet, only_warnings, to_a_file):
    start_as(monkeypatch, **ranks)
    start_log(Namespace(log_directory=tmp_path / "logs" if to_a_file else None, device_id=3))
    folder, volume = tmp_path / f"logs/{number}", {"quiet": quiet, "only_warnings": only_warnings}
    assert did == [
        *[("hold_folder", (folder, "--log_directory"), {}), ("keep_earlier", (folder,), {"but": LOCK})] * to_a_file,
        ("open_log", (folder / f"train_{number}.log" if to_a_file else None,), volume),
    ]
    assert folder.is_dir() == to_a_file


@pytest.mark.parametrize(("restarts", "is_kept"), [(None, True), (0, True), (1, False), (2, False)])
def test_ranks_that_were_started_again_go_on_with_their_log(tmp_path, monkeypatch, did, restarts, is_kept):
    start_as(monkeypatch, restarts=restarts)
    start_log(Namespace(log_directory=tmp_path, device_id=0))
    assert ("keep_earlier" in [name for name, *_ in did]) == is_kept


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, did):
    start_as(monkeypatch)
    (tmp_path / "logs").write_text("no folder")
    with pytest.raises(
        UserError, match=rf"cannot write logs to {tmp_path}/logs/3: .*; --log_directory=DIR names anoth"
    ):
        start_log(Namespace(log_directory=tmp_path / "logs", device_id=3))
    assert not did
