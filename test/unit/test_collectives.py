"""What processes do together, on a stand-in for torch.distributed: nothing at all in a single process."""

import logging
import os
import platform
import socket
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore

from common import distributed, meeting
from common.device import pick_device
from common.distributed import Ranks, first_ranks, gather_objects
from common.program import UserError

CPU = pick_device("cpu")


class Wrapped(torch.nn.Module):
    """Stands in for DistributedDataParallel."""

    def __init__(self, model, device_ids):
        super().__init__()
        self.model, self.device_ids, self.not_now = model, device_ids, nullcontext()

    def no_sync(self):
        return self.not_now


@pytest.fixture
def group(monkeypatch):
    """Rank 1 of 3; ``noted`` has what it asks the others for, ``others`` what those send."""
    group = SimpleNamespace(noted=[], is_there=True, backend="gloo", others=None)

    def all_gather_object(values, value):
        assert len(values) == 3
        values[:] = ["of rank 0", value, "of rank 2"] if group.others is None else group.others(value)

    def broadcast_object_list(made, rank):
        group.noted.append((list(made), rank))
        if group.others:
            made[:] = group.others(made)

    def all_reduce(tensor):
        tensor += 100

    stand_in = SimpleNamespace(
        is_initialized=lambda: group.is_there, get_world_size=lambda: 3, get_backend=lambda: group.backend,
        all_gather_object=all_gather_object, broadcast_object_list=broadcast_object_list, all_reduce=all_reduce,
        broadcast=lambda tensor, rank: group.noted.append((tensor, rank)), PrefixStore=torch.distributed.PrefixStore,
        destroy_process_group=lambda: group.noted.append("left"),
        init_process_group=lambda *args, **options: group.noted.append((args, options)),
    )  # fmt: skip
    monkeypatch.setattr(distributed, "dist", stand_in)
    monkeypatch.setattr(distributed, "DistributedDataParallel", Wrapped)
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_store", None)
    monkeypatch.setattr(distributed, "_hosts", [])
    return group


def test_a_single_process_asks_nobody(group, monkeypatch):
    group.is_there = False
    model, tensor = torch.nn.BatchNorm1d(2), torch.ones(2)
    assert distributed.wrap(model, CPU) is model
    assert distributed.sum_over_ranks(tensor) is tensor and tensor.tolist() == [1, 1]
    assert gather_objects("value") == ["value"] and first_ranks(lambda: "made", rank=2) == "made"
    distributed.share_buffers(model)
    distributed.agree({"a": 1})
    distributed.stop()
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.start(CPU, 60, {"a": 1})
    assert group.noted == [] and distributed._store is None


def test_everyones_values_are_here_in_the_order_of_the_ranks(group):
    assert gather_objects("mine") == ["of rank 0", "mine", "of rank 2"]


def test_a_sum_is_in_place(group):
    tensor = torch.ones(2)
    assert distributed.sum_over_ranks(tensor) is tensor and tensor.tolist() == [101, 101]


def test_all_agree_or_are_told(group):
    group.others = lambda value: [value] * 3
    distributed.agree({"size": 1})
    group.others = lambda value: [value, {"size": 2}, value]
    same = "start all of them with the same options, configuration, code and data"
    for advice, said in ((same, []), ("mend it", ["mend it"])):
        with pytest.raises(UserError, match=f"disagree: size is 1 on rank 0, 2, 2 on rank 1: {advice}$"):
            distributed.agree({"size": 1}, *said)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_what_one_rank_makes_all_have(group, rank):
    """The others do not even look."""
    made = []
    group.others = lambda sent: ["what was made", None]
    assert first_ranks(lambda: made.append(1) or "mine", rank) == "what was made"
    assert made == [1] * (rank == 1)
    assert group.noted == [([("mine" if rank == 1 else None), None], rank)]
    group.others = lambda sent: [None, UserError("no file")]
    with pytest.raises(UserError, match=r"^no file$"):
        first_ranks(lambda: "mine", rank)


def test_the_first_rank_makes_what_all_have_unless_another_one_is_named(group):
    first_ranks(lambda: pytest.fail("this is rank 1"))
    assert group.noted == [([None, None], 0)]


def test_a_mistake_that_one_rank_finds_is_sent_to_all(group):
    def fail():
        raise UserError("no file")

    with pytest.raises(UserError, match=r"^no file$"):
        first_ranks(fail, rank=1)
    ((sent, rank),) = group.noted
    assert (sent[0], str(sent[1]), rank) == (None, "no file", 1)


def test_the_first_rank_s_statistics_are_everyone_s(group):
    model = torch.nn.BatchNorm1d(2)
    distributed.share_buffers(model)
    assert [id(tensor) for tensor, _ in group.noted] == [id(tensor) for tensor in model.buffers()]
    assert {rank for _, rank in group.noted} == {0}


@pytest.mark.parametrize(("backend", "leaves"), [("gloo", False), ("nccl", True), ("hccl", True)])
def test_the_group_is_left_but_for_gloo_s(group, backend, leaves):
    group.backend = backend
    distributed.stop()
    assert group.noted == ["left"] * leaves


def test_gradients_are_averaged_on_the_card_of_this_process_at_the_last_pass(group):
    model = torch.nn.Linear(1, 1)
    wrapped = distributed.wrap(model, CPU)
    assert wrapped.model is model and wrapped.device_ids is None
    card = replace(CPU, type="cuda", torch_device=torch.device("cuda", 5))
    assert distributed.wrap(model, card).device_ids == [5]
    assert distributed.gradients_reduced(wrapped, last=False) is wrapped.not_now
    for which, last in ((wrapped, True), (model, False), (model, True)):
        assert isinstance(distributed.gradients_reduced(which, last), nullcontext)
        assert distributed.gradients_reduced(which, last) is not wrapped.not_now


def test_the_group_begins_where_the_processes_have_met(group, monkeypatch):
    met, store = [], SimpleNamespace(set_timeout=lambda timeout: met.append(timeout))
    monkeypatch.setattr(distributed, "_meet", lambda *args: met.append(args) or store)
    distributed.start(CPU, 7200, {"size": 1})
    limit = timedelta(hours=2)
    assert met == [(Ranks(1, 3, 0), {"WORLD_SIZE": 3, "device": "cpu", "size": 1}, 7200), limit]
    assert group.noted == [(("gloo",), {"store": store, "rank": 1, "world_size": 3, "timeout": limit})]


def test_hccl_waits_as_long_as_the_process_group(monkeypatch):
    """With or without env_npu.sh; what the user has set stays."""
    started = []
    monkeypatch.setattr(distributed, "_meet", lambda *_: dist.HashStore())
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout, **_: started.append((backend, timeout)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    connect, execute = distributed.HCCL_LIMITS
    monkeypatch.setenv(connect, "")
    monkeypatch.delenv(connect)
    monkeypatch.setenv(execute, "60")
    distributed.start(replace(CPU, backend="hccl"))
    seconds = str(int(distributed.TIMEOUT.total_seconds()))
    assert started == [("hccl", distributed.TIMEOUT)]
    assert (os.environ[connect], os.environ[execute]) == (seconds, "60")


@pytest.mark.parametrize(
    ("hang_limit", "seconds", "patience"),
    [(0, 1800, 1800), (10, 1800, 30), (60, 1800, 60), (7200, 7200, 7200), (30000, 30000, 30000)],
)
def test_no_wait_for_others_is_shorter_than_the_hang_limit(monkeypatch, hang_limit, seconds, patience):
    """At first they are waited for no longer than that, but until a line about it is due."""
    timeouts = []

    def meet(ours, facts, limit):
        assert limit == patience
        return SimpleNamespace(set_timeout=timeouts.append)

    monkeypatch.setattr(distributed, "_meet", meet)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout, **_: timeouts.append(timeout))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in distributed.HCCL_LIMITS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    distributed.start(replace(CPU, backend="hccl"), hang_limit)
    assert [timeout.total_seconds() for timeout in timeouts] == [seconds] * 2
    # CANN's documentation has no larger ones.
    assert {name: os.environ[name] for name in distributed.HCCL_LIMITS} == {
        "HCCL_CONNECT_TIMEOUT": str(min(seconds, 7200)), "HCCL_EXEC_TIMEOUT": str(min(seconds, 17340)),
    }  # fmt: skip


@pytest.fixture
def meets(group, monkeypatch, caplog):
    """A function that lets this rank meet others which say these things of themselves: the store, what was logged."""
    for name, value in {"MASTER_ADDR": "far", "MASTER_PORT": "5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    inner = HashStore()
    inner.set_timeout(timedelta(seconds=1))  # for what is not there
    monkeypatch.setattr(meeting, "connect", lambda *_: inner)
    mine = {"host": socket.gethostname(), "torch": torch.__version__, "Python": platform.python_version()}

    def meet(*others):
        def come(store, kind, me, count, facts, limit, say):
            assert (kind, me, count, limit) == ("rank", 1, 3, 60)
            assert facts == {"facts": {"size": 1}, "notes": mine}
            store.set("word", "here")
            everyones = [facts | {"notes": dict(mine)} for _ in range(3)]
            for rank, changes in others:
                everyones[rank] = {"facts": {"size": 1} | changes.pop("facts", {}), "notes": mine | changes}
            return everyones

        monkeypatch.setattr(meeting, "meet", come)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            return distributed._meet(Ranks(1, 3, 0), {"size": 1}, 60), inner, caplog.messages

    return meet


def test_other_releases_are_only_said_and_the_machines_remembered(meets):
    _, _, said = meets((0, {"host": "a"}), (2, {"host": "b"}))
    assert said == [] and distributed._hosts == ["a", socket.gethostname(), "b"]
    _, _, said = meets((2, {"torch": "1.0", "host": "b"}))
    assert said == [
        "the processes are not alike, and their numbers may not be:"
        f" torch is '{torch.__version__}' on rank 0, 1, '1.0' on rank 2"
    ]
    assert len(meets((2, {"torch": "1.0", "Python": "2.7"}))[2]) == 2


def test_other_facts_end_it(meets, monkeypatch):
    monkeypatch.setattr(meeting, "part", lambda *_: None)
    with pytest.raises(UserError, match="disagree: size is 1 on rank 0, 1, 2 on rank 2: start all of them with the"):
        meets((2, {"facts": {"size": 2}}))


def test_each_attempt_has_words_of_its_own(meets, monkeypatch):
    """The store still holds those of the attempt before a restart."""
    for attempt in ("", "0", "3"):
        if attempt:
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        store, inner, _ = meets()
        assert distributed._store is store
        name = f"attempt_{attempt or 0}/word"
        assert store.get("word") == inner.get(name) == b"here"
        inner.delete_key(name)


def test_a_launch_without_an_address_is_no_launch(group, monkeypatch):
    for address in (None, ""):
        monkeypatch.setenv("MASTER_ADDR", "")
        if address is None:
            monkeypatch.delenv("MASTER_ADDR")
        with pytest.raises(UserError, match=r"WORLD_SIZE is 3 and MASTER_ADDR is not set: `unset RANK WORLD_SIZE` for"):
            distributed._meet(Ranks(1, 3, 0), {}, 60)
