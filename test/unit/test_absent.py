"""What a process says when others are gone: which, and on which machines; and what it takes for that at all."""

import pytest
from clocks import Clock
from torch.distributed import HashStore

from common import distributed, meeting
from common.distributed import naming_the_absent

GONE = "Connection closed by peer [127.0.0.1]:5\nand a stack"


@pytest.fixture
def launch(monkeypatch):
    """Rank 1 of four on four machines; a function that lets an error come: what is raised then."""
    variables = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "10.0.0.1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = HashStore()
    monkeypatch.setattr(distributed, "_store", store)
    monkeypatch.setattr(distributed, "_hosts", ["a", "d", "c", "b"])
    clock = Clock()
    monkeypatch.setattr(meeting, "time", clock)

    def fail(error):
        with pytest.raises(type(error)) as caught, naming_the_absent():
            raise error
        return caught.value

    fail.store, fail.clock = store, clock
    return fail


def named(launch):
    error = ConnectionError(f"gloo: {GONE}")
    raised = launch(error)
    assert raised is not error and raised.__cause__ is error
    said, _, reason = str(raised).partition(": ")
    assert reason == f"gloo: {GONE.splitlines()[0]}"
    return said


def answer(store, *ranks):
    for rank in ranks:
        store.add(f"still here/{rank}", 1)


def test_those_who_do_not_answer_are_named_with_their_machines(launch):
    answer(launch.store, 0)
    assert named(launch) == "rank 2, 3 (b, c) does not answer"
    assert launch.clock.now == distributed.ROLL_CALL
    assert launch.store.add("still here/1", 0) == 1  # nor is this one taken for absent


def test_two_on_one_machine_name_it_once(launch, monkeypatch):
    monkeypatch.setattr(distributed, "_hosts", ["a", "b", "c", "c"])
    answer(launch.store, 0)
    assert named(launch) == "rank 2, 3 (c) does not answer"


def test_all_answer(launch):
    answer(launch.store, 0, 2, 3)
    assert named(launch) == "all processes answer, but the connection between them is broken"
    assert launch.clock.now == 0


def test_the_machine_with_the_store_is_gone(launch, monkeypatch):
    class Ended:
        def add(self, *_):
            raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(distributed, "_store", Ended())
    assert named(launch) == "the machine of rank 0 (a, 10.0.0.1) does not answer"


def test_an_error_of_its_own_stays(launch):
    for error in (RuntimeError("NPU out of memory"), ZeroDivisionError("division by zero")):
        assert launch(error) is error
    assert launch.clock.now == 0  # and nobody is asked


@pytest.mark.parametrize("alone", ["one machine", "one process"])
def test_without_other_machines_nothing_is_added(launch, monkeypatch, alone):
    """torchrun knows the processes of its own."""
    if alone == "one machine":
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    else:
        monkeypatch.setattr(distributed, "_store", None)
    error = ConnectionError(f"gloo: {GONE}")
    assert launch(error) is error


def test_without_an_error_nothing_happens(launch):
    with naming_the_absent():
        pass
    assert launch.store.add("still here/1", 0) == 0
