"""Processes of one training find each other: they wait by name, and tell a launch's variables from leftovers."""

import os
import re
import socket
import subprocess
import sys
import threading

import pytest
from clocks import Clock
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_settings import BUSY
from torch.distributed import HashStore

from common import distributed, meeting
from common.program import UserError
from conftest import ROOT, make_corpus, run_script


def test_those_who_meet_learn_of_each_other():
    store, met = HashStore(), {}

    def come(me):
        met[me] = meeting.meet(store, "rank", me, 3, {"number": me}, 60, print)

    threads = [threading.Thread(target=come, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert met == {me: [{"number": 0}, {"number": 1}, {"number": 2}] for me in range(3)}


def test_those_who_do_not_come_are_named_every_half_minute_and_in_the_end(monkeypatch):
    monkeypatch.setattr(meeting, "time", Clock())
    store, said = HashStore(), []
    store.add("here/2", 1)
    with pytest.raises(UserError, match="rank 0 waited 70 s for rank 1, 3 of 4, which did not come"):
        meeting.meet(store, "rank", 0, 4, {}, 70, said.append)
    assert meeting.time.now == 70
    assert said == [f"rank 0 waits for rank 1, 3 of 4, for {waited} s so far, at most 70 s" for waited in (30, 60)]


class Arriving(Clock):
    """Each sleep of the one who waits brings another process there."""

    def __init__(self, store, first):
        self.store, self.next = store, first

    def sleep(self, seconds):
        super().sleep(seconds)
        self.store.add(f"parts/{self.next}", 1)
        self.next += 1


def test_who_ends_lets_the_others_read_first(monkeypatch):
    store = HashStore()
    clock = Arriving(store, first=1)
    monkeypatch.setattr(meeting, "time", clock)
    monkeypatch.setattr(meeting, "LONGEST_PARTING", 60)
    meeting.part(store, 0, 4)
    assert clock.next == 4  # all three have come, and nobody is waited for any more
    assert store.add("parts/0", 0) == 1  # nor do they wait for this one


def test_who_ends_waits_for_nobody_who_is_gone(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(meeting, "time", clock)
    meeting.part(HashStore(), 0, 2)
    assert clock.now == 10

    class Ended:
        def add(self, *_):
            raise RuntimeError("Connection was likely closed")

    meeting.part(Ended(), 1, 2)


def test_an_address_where_nobody_answers_is_said_every_half_minute_and_in_the_end(monkeypatch):
    monkeypatch.setattr(meeting, "time", Clock())
    said = []
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        with pytest.raises(UserError, match=rf"waited 70 s for the first process, at 127.0.0.1:{port} .* refused"):
            meeting.connect("127.0.0.1", port, False, 70, said.append)
    where = f"for the first process, at 127.0.0.1:{port} (MASTER_ADDR, MASTER_PORT)"
    refused = "[Errno 111] Connection refused"
    assert said == [f"waits {where}, for {waited} s so far, at most 70 s: {refused}" for waited in (30, 60)]
    assert meeting.time.now == 70


def test_one_serves_the_store_and_others_come_to_it(monkeypatch):
    """Twice in one process, as torchrun and its rank do."""
    tried = []
    create = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda where, timeout: tried.append((where, timeout)) or create(where, timeout)
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hosts = [meeting.connect("127.0.0.1", port, True, 70, print) for _ in range(2)]
    assert tried == []
    other = meeting.connect("127.0.0.1", port, False, 70, print)
    assert tried == [(("127.0.0.1", port), meeting.CONNECTING)]
    hosts[0].set("word", "there")
    assert other.get("word") == b"there" and hosts[1].get("word") == b"there"
    if hasattr(other, "timeout"):  # which older PyTorch does not tell
        assert {store.timeout.total_seconds() for store in (*hosts, other)} == {70}


def test_a_port_that_cannot_be_served_is_said():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^no meeting at 127.0.0.1:{port} \(MASTER_ADDR, MASTER_PORT\): .+$"):
            meeting.connect("127.0.0.1", port, True, 1, print)


@BUSY
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.text(max_size=3)), min_size=1))
def test_what_differs_is_named_and_nothing_else(everyones):
    differ = {name for facts in everyones for name in facts if any(f.get(name) != facts[name] for f in everyones)}
    found = meeting.differing(everyones)
    assert {line.split(" is ")[0] for line in found} == differ
    assert len(found) == len(differ)


def test_what_one_has_not_is_missing_there():
    """Which is not the same as nothing; of the others the kind is named."""
    everyones = [{"a": None, "b": 1}, {"b": 1}, {"a": None, "b": 1, "c": "x"}]
    assert meeting.differing(everyones, "machine") == [
        "a is None on machine 0, 2, missing on machine 1", "c is missing on machine 0, 1, 'x' on machine 2",
    ]  # fmt: skip


def test_many_are_told_in_the_order_of_their_numbers():
    (line,) = meeting.differing([{"size": 7 if rank in (2, 10) else 8} for rank in range(12)])
    assert line == "size is 8 on rank 0, 1, 3, 4, 5, 6, 7, 8, 9, 11, 7 on rank 2, 10"


def test_who_has_what_is_told():
    with pytest.raises(UserError, match=r"^the processes disagree: size is 4 on rank 0, 2, 2 on rank 1: mend it$"):
        meeting.check_same([{"size": 4}, {"size": 2}, {"size": 4}], "mend it")


@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_three_of_many_fields_are_named_and_the_others_counted(number):
    fields = {f"field{i}": 0 for i in range(number)}
    with pytest.raises(UserError) as raised:
        meeting.check_same([fields, dict.fromkeys(fields, 1)], "mend it")
    named = [name for name in fields if f"{name} is 0 on rank 0, 1 on rank 1" in str(raised.value)]
    assert named == list(fields)[:3]
    assert str(raised.value).endswith(f"; and {number - 3} more: mend it" if number > 3 else "1 on rank 1: mend it")
    meeting.check_same([fields, fields], "mend it")


@BUSY
@given(
    st.sampled_from(["WORLD_SIZE", "RANK", "LOCAL_RANK"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.integers().map(str),
)
def test_variables_of_a_launch_are_understood_or_named(name, value):
    with pytest.MonkeyPatch.context() as patch:
        for variable, number in {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "1", name: value}.items():
            patch.setenv(variable, number)
        try:
            found = distributed.ranks()
        except UserError as error:
            assert re.match("the variable (WORLD_SIZE|RANK|LOCAL_RANK) is ", str(error))
        else:
            assert 0 <= found.local_rank <= found.rank < found.world_size


@pytest.mark.parametrize(
    ("name", "smallest", "largest", "others"),
    [("WORLD_SIZE", 1, 2**16, (0, 0)), ("RANK", 0, 3, (4, 0)), ("LOCAL_RANK", 0, 2, (4, 2))],
)
def test_variables_of_a_launch_have_limits(monkeypatch, name, smallest, largest, others):
    launch = ["WORLD_SIZE", "RANK", "LOCAL_RANK"]
    for other, number in zip([each for each in launch if each != name], others, strict=True):
        monkeypatch.setenv(other, str(number))
    for number in (smallest, largest):
        monkeypatch.setenv(name, str(number))
        found = distributed.ranks()
        assert {"WORLD_SIZE": found.world_size, "RANK": found.rank, "LOCAL_RANK": found.local_rank}[name] == number
    monkeypatch.delenv(name)
    assert distributed.ranks() == distributed.Ranks(*{"RANK": (0, 4, 0), "LOCAL_RANK": (2, 4, 0)}.get(name, (0, 1, 0)))
    for number in (smallest - 1, largest + 1):
        monkeypatch.setenv(name, str(number))
        with pytest.raises(UserError, match=f"the variable {name} is .*from {smallest} to {largest} as torchrun"):
            distributed.ranks()


def test_where_processes_meet(monkeypatch):
    """The first one serves the store, unless torchrun does; any port that there is."""
    asked = []
    monkeypatch.setattr(meeting, "connect", lambda *args: asked.append(args[:4]) or HashStore())
    monkeypatch.setattr(meeting, "meet", lambda *_: [])
    monkeypatch.setenv("MASTER_ADDR", "far")
    for rank, served, port in ((0, "False", 1), (0, "True", 65535), (1, "False", 5)):
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", served)
        monkeypatch.setenv("MASTER_PORT", str(port))
        distributed._meet(distributed.Ranks(rank, 2, rank), {}, 7)
        assert asked.pop() == ("far", port, (rank, served) == (0, "False"), 7)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UserError, match="MASTER_PORT is not set, must be a number"):
        distributed._meet(distributed.Ranks(0, 2, 0), {}, 7)
    for port in ("0", "65536"):
        monkeypatch.setenv("MASTER_PORT", port)
        with pytest.raises(UserError, match=r"MASTER_PORT is .*from 1 to 65535"):
            distributed._meet(distributed.Ranks(0, 2, 0), {}, 7)


def test_all_know_on_what_they_disagree_before_one_ends(monkeypatch):
    monkeypatch.setattr(meeting, "connect", lambda *_: HashStore())
    met = [{"facts": {"size": size}, "notes": {"host": "far"}} for size in (2, 3)]
    monkeypatch.setattr(meeting, "meet", lambda *_: met)
    parted = []
    monkeypatch.setattr(meeting, "part", lambda store, *who: parted.append(who))
    monkeypatch.setenv("MASTER_ADDR", "far")
    monkeypatch.setenv("MASTER_PORT", "5")
    with pytest.raises(UserError, match="the processes disagree: size is 2 on rank 0, 3 on rank 1"):
        distributed._meet(distributed.Ranks(1, 2, 0), {}, 7)
    assert parted == [(1, 2)]


LEFT = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
    "TORCHELASTIC_ERROR_FILE": "/nowhere/error.json", "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
"Variables of a launch that has ended."


def test_a_program_of_one_process_does_not_take_leftover_variables_for_its_own(tmp_path):
    command = [sys.executable, "tools/convert_checkpoint.py", "--to=native", tmp_path / "none", tmp_path / "new"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | LEFT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"error: no checkpoint at {tmp_path / 'none'}\n")


@pytest.mark.slow
def test_a_script_of_one_process_does_not_take_leftover_variables_for_its_own(checkout, config):
    corpus = make_corpus(checkout / "a corpus")
    options = [f"--config={config[0]}", f"--data_path={corpus}", f"--output_directory={checkout / 'out'}"]
    done = run_script(checkout, "train_performance_1p.sh", *options, "--device=cpu", "--max_steps=1", **LEFT)
    assert done.returncode == 0, done.stderr
    assert (checkout / "out/waveglow_1").is_file()


def test_a_training_that_waits_in_vain_says_so_on_the_terminal(config, corpus, tmp_path):
    """Though its log is elsewhere, and it is not the first rank."""
    options = [f"--config={config[0]}", f"--data_path={corpus}", "--device=cpu", f"--log_directory={tmp_path / 'logs'}"]
    command = [sys.executable, "-m", "waveglow.train", *options, f"--output_directory={tmp_path / 'out'}"]
    left = LEFT | {"MASTER_PORT": "none"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | left, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the variable MASTER_PORT is 'none', must be a number from 1 to 65535")
