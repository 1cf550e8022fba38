"""Which numbers of a file a pickled tensor has, what it may cost, and what is no tensor of the file."""

import io
import pickle
import struct
import zipfile
from contextlib import nullcontext

import pytest
import torch
from pickles import FORMATS, REBUILD, save, text, zip_with

from common.checkpoints import restricted_pickle
from common.checkpoints.budget import ENTRY, Budget, RefusedError
from common.checkpoints.pickle_names import STORAGES, Shell

KINDS = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
"All that torch has had since its first versions and that a model may hold."


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def storage(numel: int, kind: str = "FloatStorage", module: str = "torch", view: bytes = b"") -> bytes:
    """The persistent id of a storage."""
    name = f"c{module}\n{kind}\n".encode()
    return b"(" + text("storage") + name + text("0") + text("cpu") + number(numel) + view + b"tQ"


def view(offset: int, length: int) -> bytes:
    """How files before torch 0.4 name a part of a storage."""
    return b"(" + text("view") + number(offset) + number(length) + b"t"


def tensor(stored: bytes, offset: int, size: int, stride: int = 1) -> bytes:
    return REBUILD + b"(" + stored + number(offset) + number(size) + b"\x85" + number(stride) + b"\x85tR"


def unpickled(data: bytes, size: int = 1000):
    """As from a file of ``size`` bytes, whose storages count up from 0."""
    return restricted_pickle.Unpickler(
        io.BytesIO(data + b"."), Budget(size), lambda key, dtype, numel: torch.arange(numel).to(dtype)
    ).load()


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_storage_is_of_its_type_and_costs_its_bytes(kind, module):
    dtype = KINDS[kind]
    found = unpickled(storage(5, kind, module), 5 * dtype.itemsize)
    assert found.dtype == dtype and torch.equal(found, torch.arange(5).to(dtype))
    with pytest.raises(ValueError, match="larger than the file"):
        unpickled(storage(5, kind, module), 5 * dtype.itemsize - 1)
    assert STORAGES.keys() == KINDS.keys()


@pytest.mark.parametrize(
    ("stored", "offset", "size", "stride", "found"),
    [
        (storage(6), 0, 6, 1, [0, 1, 2, 3, 4, 5]),
        (storage(6), 2, 3, 1, [2, 3, 4]),
        (storage(6), 1, 3, 2, [1, 3, 5]),
        (storage(6, view=b"N"), 2, 3, 1, [2, 3, 4]),
        (storage(6, view=view(2, 4)), 0, 4, 1, [2, 3, 4, 5]),
        (storage(6, view=view(2, 3)), 1, 2, 1, [3, 4]),  # from the view's beginning
        (storage(6, view=view(3, 3)), 0, 0, 1, []),
    ],
)
def test_a_tensor_is_the_part_of_its_storage_that_the_file_says(stored, offset, size, stride, found):
    assert unpickled(tensor(stored, offset, size, stride)).tolist() == found
    with pytest.raises(RefusedError, match="larger than its storage"):
        unpickled(tensor(stored, offset, 7, 0))


def test_a_tensor_is_no_larger_than_the_view_it_is_in():
    with pytest.raises(RefusedError, match="larger than its storage"):
        unpickled(tensor(storage(6, view=view(2, 3)), 0, 4))


@pytest.mark.parametrize(
    ("numel", "size", "said"),
    [
        (0, 0, ""), (1, 1, ""), (2, 2, ""), (0, 1, "larger than its storage"), (1, 2, "larger than its storage"),
        (3, 1, "buffer"),
    ],
)  # fmt: skip
def test_an_archive_gives_as_many_numbers_as_the_pickle_claims(tmp_path, numel, size, said):
    """However many there are: here two."""
    path = zip_with(tmp_path / "a.pt", tensor(storage(numel), 0, size) + b".")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", struct.pack("<2f", 1, 2))
    with open(path, "rb") as file, pytest.raises((RefusedError, ValueError), match=said) if said else nullcontext():
        assert restricted_pickle.load(file).tolist() == [1, 2][:size]


def test_the_object_of_an_archive_is_in_its_only_folder(tmp_path):
    """Others of that name, deeper, are none of torch's."""
    path = zip_with(tmp_path / "a.pt", b"K\x07.", **{"deep/data.pkl": b"K\x08."})
    with open(path, "rb") as file:
        assert restricted_pickle.load(file) == 7


def test_tensors_of_one_storage_share_it_and_cost_it_once():
    first, second = unpickled(b"(" + tensor(storage(6), 0, 4) + tensor(storage(6), 2, 4) + b"t", 6 * 4)
    assert first.data_ptr() + 2 * 4 == second.data_ptr()


@pytest.mark.parametrize("size", [0, 100])
def test_each_tensor_costs_what_it_spans(size):
    """Four times the file's bytes and a megabyte, however many share one storage."""
    many = (4 * size + 2**20) // (4 * 2**14)
    for extra, is_taken in ((0, True), (1, False)):
        budget = Budget(size)
        budget.storages = 4 * 2**14
        data = b"(" + tensor(storage(2**14), 0, 2**14) * (many + extra) + b"t."
        load = restricted_pickle.Unpickler(io.BytesIO(data), budget, lambda key, dtype, n: torch.zeros(n)).load
        if is_taken:
            assert len(load()) == many
        else:
            with pytest.raises(RefusedError, match="share one storage"):
                load()


def test_there_are_no_tensors_where_none_can_be():
    """In the parts of an old file that come before the object."""
    with pytest.raises(ValueError, match="where there can be none"):
        restricted_pickle.Unpickler(io.BytesIO(storage(1) + b"."), Budget(1000)).load()


def old_file(numel: int, keys: list[str], lengths: list[int]) -> io.BytesIO:
    """As torch wrote before 1.6: a tensor of a storage with the key 0, the keys, and each storage with its length."""
    head = [pickle.dumps(value, protocol=2) for value in (restricted_pickle.LEGACY_MAGIC, 1001, {})]
    body = [tensor(storage(numel), 0, numel) + b".", pickle.dumps(keys, protocol=2)]
    data = [struct.pack("<q", n) + struct.pack(f"<{n}f", *range(n)) for n in lengths]
    return io.BytesIO(b"".join([*head, *body, *data]))


def test_an_old_file_has_the_storages_of_its_tensors_and_no_others():
    assert restricted_pickle.load(old_file(3, ["0"], [3])).tolist() == [0, 1, 2]
    for keys in ([], ["1"], ["0", "1"]):
        with pytest.raises(ValueError, match="other storages than tensors"):
            restricted_pickle.load(old_file(3, keys, [3] * len(keys)))
    for length in (2, 4):
        with pytest.raises(ValueError, match="another length"):
            restricted_pickle.load(old_file(3, ["0"], [length]))


def test_an_old_file_that_begins_otherwise_is_none_of_torch():
    file = io.BytesIO(b"".join(pickle.dumps(value, protocol=2) for value in (1, 1001, {}, {"a": 1}, [])))
    with pytest.raises(ValueError, match=r"no file of torch\.save"):
        restricted_pickle.load(file)


@pytest.mark.parametrize("file_format", FORMATS)
def test_without_tensors_their_data_are_not_read(tmp_path, file_format):
    """Only their shapes and types are: of what is not there, too."""
    value = {"a": torch.ones(3, 2).t(), "b": torch.zeros(4, dtype=torch.float16), "none": torch.zeros(0, 5), "n": 7}
    path = save(tmp_path / "a.pt", value, file_format)
    with open(path, "rb") as file:
        found = restricted_pickle.load(file, with_tensors=False)
        assert restricted_pickle.load(file)["a"].tolist() == value["a"].tolist()
    assert found.keys() == value.keys() and found["n"] == 7
    for name in ("a", "b", "none"):
        expected = value[name]
        assert found[name].is_meta and (found[name].shape, found[name].dtype) == (expected.shape, expected.dtype)
    file = io.BytesIO(old_file(3, ["0"], []).getvalue())
    assert restricted_pickle.load(file, with_tensors=False).shape == (3,)


@pytest.mark.parametrize(("order", "is_taken"), [(None, True), (b"little", True), (b"big", False), (b"", False)])
def test_the_order_of_bytes_is_this_machines(tmp_path, order, is_taken):
    members = {} if order is None else {"byteorder": order}
    path = zip_with(tmp_path / "a.pt", b"K\x07.", **members)
    with open(path, "rb") as file:
        if is_taken:
            assert restricted_pickle.load(file) == 7
        else:
            with pytest.raises(RefusedError, match="big-endian"):
                restricted_pickle.load(file)


ENTRIES = b"(" + text("a") + b"K\x01" + text("b") + b"K\x02"
EQUAL = {
    "SETITEMS": b"}" + ENTRIES + b"u",
    "SETITEM": b"}" + text("a") + b"K\x01s" + text("b") + b"K\x02s",
    "DICT": ENTRIES + b"d",
    "an ordered one": b"ccollections\nOrderedDict\n]("
    + text("a") + b"K\x01\x86" + text("b") + b"K\x02\x86e\x85R",
}  # fmt: skip


@pytest.mark.parametrize("way", EQUAL)
def test_a_dict_is_the_same_in_every_way_of_writing_it(way):
    assert unpickled(EQUAL[way]) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x8f(K\x01K\x02\x90", {1, 2}),
        (b"c__builtin__\nset\n](K\x01K\x02e\x85R", {1, 2}),
        (b"ctorch\nSize\n(K\x03K\x04t\x85R", (3, 4)),
        (b"c_codecs\nencode\nX\x02\x00\x00\x00\xc3\xbf" + text("latin1") + b"\x86R", b"\xff"),
        (b"ccollections\nCounter\n}" + text("a") + b"K\x05s\x85R", {"a": 5}),
        (b"ccollections\ndefaultdict\nc__builtin__\nint\n\x85R", {}),
        (b"cbuiltins\ncomplex\nK\x01K\x02\x86R", 1 + 2j),
    ],
)
def test_what_is_built_is_what_the_name_says(data, found):
    assert unpickled(data) == found


def test_an_object_is_a_shell_with_its_attributes():
    """Also where its class has slots, whose values come second."""
    attributes, slots = b"}" + text("a") + b"K\x01s", b"}" + text("b") + b"K\x02s"
    made = b"\x80\x02cglow\nWaveGlow\n)\x81"
    for state in (attributes, attributes + slots + b"\x86", attributes + b"N\x86"):
        shell = unpickled(made + state + b"b")
        assert type(shell) is Shell and shell.name == "glow.WaveGlow" and shell.state == {"a": 1} and not shell
    with_keywords = unpickled(b"\x80\x04cglow\nWaveGlow\n)}\x92" + attributes + b"b")
    assert (with_keywords.name, with_keywords.state) == ("glow.WaveGlow", {"a": 1})
    for state in (b"N", b"K\x05", b"N" + slots + b"\x86", attributes + slots + b"N\x87", b"(" + attributes + b"t"):
        assert unpickled(made + state + b"b").state == {}


def test_a_class_may_come_with_its_source():
    kind = unpickled(
        b"(" + text("module") + b"cglow\nWaveGlow\n" + text("glow.py") + text("class WaveGlow: ...") + b"tQ"
    )
    assert kind.name == "glow.WaveGlow" and kind.build is None


def test_entries_are_set_in_dicts_alone():
    for data in (b"]" + ENTRIES + b"u", b"cglow\nX\n" + text("a") + b"K\x01s"):
        with pytest.raises(RefusedError, match="of what is no dict"):
            unpickled(data)


@pytest.mark.parametrize("way", ["SETITEMS", "SETITEM", "DICT"])
def test_every_entry_of_a_dict_costs_memory(monkeypatch, way):
    spent = []
    monkeypatch.setattr(Budget, "spend", lambda budget, memory: spent.append(memory))
    unpickled(EQUAL[way])
    assert spent.count(ENTRY) == 2
