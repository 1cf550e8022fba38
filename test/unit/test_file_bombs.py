"""Small files that would take the machine down if they were read without a budget."""

import io
import pickle
import struct
import zipfile

import pytest
import torch

from common.checkpoints import budget, native, pickle_names, restricted_pickle
from common.checkpoints.budget import Budget, RefusedError
from common.checkpoints.interchange import read
from common.mel_files import read_mel
from common.program import UserError, shown

pytest_plugins = ["hostile"]


def short_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


STORAGE = (
    b"(" + short_text("storage") + b"ctorch\nFloatStorage\n" + short_text("0") + short_text("cpu") + b"M\xe8\x03tQ"
)


ONE_TENSOR = REBUILD + b"(" + STORAGE + b"K\x00M\xe8\x03\x85K\x01\x85tR"


DOUBLED = b"\x94".join([b")", *[b"2\x86"] * 60])
"A pair of a pair of a pair ...: two to the power of 60 parts for whoever walks through them."


BOMBS = {
    "many tensors on one storage": b"(" + ONE_TENSOR * 2000 + b"t.",
    "a tuple as a key": b"}" + DOUBLED + b"Ns.",
    "a tuple in a set": b"\x8f(" + DOUBLED + b"\x90.",
    "bytes that are not there": b"\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a text that is not there": b"\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "a frame that is not there": b"\x95" + struct.pack("<Q", 2**40) + b"}.",
    "one list copied again and again": b"("
    + b"K\x01" * 5000 + b"tq\x00\x85q\x01" + b"ctorch\nSize\nh\x01R" * 40_000 + b".",
    "an integer that meets all others": b"}(" + b"".join(
        pickle.dumps(k * (2**61 - 1), 2)[2:-1] + b"N" for k in range(1, 50)
    ) + b"u.",
    "many dimensions": REBUILD + b"(" + STORAGE + b"K\x00(" + b"K\x01" * 5000 + b"t(" + b"K\x01" * 5000 + b"ttR.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_take_the_machine_down(name, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", BOMBS[name])
        archive.writestr("archive/data/0", bytes(4000))
    if name == "a frame that is not there":  # a frame is only a hint
        assert restricted_pickle.load(io.BytesIO(path.read_bytes())) == {}
        return
    for reader in (read, lambda path: read_mel(path, 80)):
        with pytest.raises(UserError, match=r"is refused|truncated or no checkpoint|not readable as a mel"):
            reader(path)


def test_a_packed_archive_is_not_unpacked_on_resuming(trained):
    with zipfile.ZipFile(trained / "out/waveglow_2") as old, zipfile.ZipFile(trained / "odd", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="compressed"):
        native.load(trained / "odd")


def test_circles_end(tmp_path):
    circle: dict = {}
    circle |= {str(i): circle for i in range(500)}
    torch.save(circle, tmp_path / "a")
    with pytest.raises(UserError, match="holds no weights"):
        read(tmp_path / "a")


def test_names_of_one_tensor_do_not_outgrow_the_file(tmp_path):
    tensor = torch.zeros(10**5)
    torch.save({"model": {f"WN.{i}.start.bias": tensor for i in range(200)}}, tmp_path / "a")
    with pytest.raises(UserError, match="so many names for one tensor"):
        read(tmp_path / "a")


@pytest.mark.parametrize("size", [0, 1000, 10**9])
def test_the_budget_is_what_the_file_s_size_allows(size):
    """All of it may be spent, and not a byte more: 4 bytes of tensors and 16 of memory for each of the file's."""
    limits = {
        "spend_storage": (size, ValueError),
        "spend_tensor": (4 * size + 2**20, RefusedError),
        "spend": (16 * size + 2**28, RefusedError),
    }
    for name, (limit, error) in limits.items():
        getattr(Budget(size), name)(limit)
        with pytest.raises(error):
            getattr(Budget(size), name)(limit + 1)
        spent_twice = Budget(size)
        getattr(spent_twice, name)(limit)
        with pytest.raises(error):
            getattr(spent_twice, name)(1)


def test_tensors_take_memory_even_without_numbers(monkeypatch):
    monkeypatch.setattr(budget, "MEMORY", 1000 * budget.INSTRUCTION)
    many = Budget(0)
    for _ in range(1000):
        many.spend_tensor(0)
    with pytest.raises(RefusedError, match="more memory"):
        many.spend_tensor(0)


@pytest.mark.parametrize(("size", "seconds"), [(0, 30), (10**9, 80)])
def test_the_budget_of_time_grows_with_the_file(monkeypatch, size, seconds):
    clock = [100.0]
    monkeypatch.setattr(budget.time, "thread_time", lambda: clock[0])
    slow = Budget(size)
    clock[0] += seconds
    for _ in range(2000):
        slow.spend(1)
    clock[0] += 0.1
    with pytest.raises(RefusedError, match="more time"):
        for _ in range(1000):
            slow.spend(1)


def test_a_reader_is_never_asked_for_more_than_the_file_has():
    """Where that is much: Python would take the memory first."""

    class File(io.BytesIO):
        def read(self, count):
            assert count <= 3 * 2**20
            return super().read(count)

    data = bytes(3 * 2**20)
    metered = budget.Metered(File(data), Budget(len(data)))
    assert metered.read(2**20) + metered.read(2 * 2**20) == data
    with pytest.raises(EOFError):
        metered.read(2**20 + 1)
    assert budget.Metered(File(b"ab"), Budget(2)).read(2**20) == b"ab"


def test_every_reading_is_an_instruction_that_costs():
    """Bytes, and lines: the text protocol has nothing else."""
    metered = budget.Metered(io.BytesIO(b"ab\ncd"), Budget(0))
    before = metered.budget.memory
    assert [metered.readline(), metered.read(1), metered.read(1), metered.readline()] == [b"ab\n", b"c", b"d", b""]
    assert before - metered.budget.memory == 4 * budget.INSTRUCTION == 600


def test_time_runs_out(monkeypatch):
    monkeypatch.setattr(budget, "SECONDS", -1.0)
    with pytest.raises(RefusedError, match="more time"):
        restricted_pickle.Unpickler(io.BytesIO(b"(" + b"N" * 2000 + b"t."), Budget(10)).load()


def test_memory_runs_out(monkeypatch):
    monkeypatch.setattr(budget, "MEMORY", 10**5)
    with pytest.raises(RefusedError, match="more memory"):
        restricted_pickle.Unpickler(io.BytesIO(b"(" + b"}" * 2000 + b"t."), Budget(10)).load()


def test_a_value_is_shown_in_short():
    nested: list = []
    for _ in range(60):
        nested = [nested, nested]
    circle: dict = {}
    circle["a"] = circle
    for value in (nested, circle, 10**5000, "x" * 10**6, pickle_names.Shell("a.B"), list(range(10**5))):
        assert len(shown(value)) < 300
