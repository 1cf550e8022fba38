"""Hostile pickles are refused by name and have no effect; what honest checkpoints hold is read."""

import argparse
import collections
import datetime
import functools
import importlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pickles import FORMATS, REBUILD, save, text, zip_with
from torch import nn

from common.checkpoints import pickle_names, restricted_pickle
from common.checkpoints.budget import Budget, RefusedError
from common.checkpoints.interchange import load_weights
from common.checkpoints.pickle_names import Shell
from common.program import UserError


class Call:
    """Pickles into a call, as ``__reduce__`` lets any object do."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def hostile_calls(marker: Path) -> dict[str, Call]:
    """By the function's name; each one, if it ran, would leave the file ``marker`` or another trace."""
    touch, code = f"touch '{marker}'", f"open({str(marker)!r}, 'w')"
    nested = io.BytesIO()
    torch.save(Call(os.system, touch), nested)
    return {
        "system": Call(os.system, touch),
        "execv": Call(os.execv, "/bin/touch", ["touch", str(marker)]),
        "Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "check_output": Call(subprocess.check_output, touch),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "compile": Call(compile, code, "x", "exec"),
        "getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "bytearray": Call(bytearray, 10**12),
        "list": Call(list, [marker]),
        "open": Call(open, str(marker), "w"),
        "partial": Call(functools.partial, os.system, touch),
        "import_module": Call(importlib.import_module, "antigravity"),
        "loads": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, nested.getvalue()),
        "torch.hub.load": Call(torch.hub.load, "a/b", "c"),
        "torch.jit._serialization.load": Call(torch.jit.load, str(marker)),
        "torch.nn.init.ones_": Call(nn.init.ones_, torch.zeros(1)),
        "numpy.load": Call(np.load, str(marker)),
        "touch_marker": Call(touch_marker, str(marker)),
    }


def touch_marker(path):
    Path(path).touch()


FUNCTIONS = list(hostile_calls(Path("x")))
PLACES = {
    "alone": lambda call: call,
    "as a weight": lambda call: {"model": {"WN.0.start.bias": torch.ones(2), "WN.0.end.bias": call}},
    "deep": lambda call: {"optimizer": {"state": [({"exp_avg": [torch.ones(1), call]},)]}},
    "as a key": lambda call: {"model": {call: 1}},
    "in a module": lambda call: {"model": module_with(call)},
    "in the state of a shell": lambda call: argparse.Namespace(path=call),
    "in a builder's arguments": lambda call: Call(torch._utils._rebuild_parameter, call, True, {}),
    "as the state of a builder": lambda call: Call(collections.OrderedDict, state=(None, {"__setstate__": call})),
}


def module_with(value) -> nn.Module:
    module = nn.Sequential(nn.Linear(1, 1))
    module.hook = value
    return module


def load(path: Path):
    with open(path, "rb") as file:
        return restricted_pickle.load(file)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


def test_the_hostile_pickle_works_where_pickles_are_run(tmp_path, marker):
    path = save(tmp_path / "a.pt", PLACES["in a module"](hostile_calls(marker)["system"]))
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_calls_are_refused_by_name(tmp_path, marker, function, file_format):
    path = save(tmp_path / "a.pt", PLACES["deep"](hostile_calls(marker)[function]), file_format)
    with pytest.raises(UserError, match=rf"'([\w.]+\.)?{function}'; nothing in it was run"):
        load_weights(path)
    assert not marker.exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("place", PLACES)
def test_calls_are_refused_anywhere(tmp_path, marker, place, file_format):
    path = save(tmp_path / "a.pt", PLACES[place](hostile_calls(marker)["system"]), file_format)
    with pytest.raises(UserError, match=r"asks for 'posix\.system'"):
        load_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize("hidden_in", ["magic", "keys"])
def test_calls_around_the_legacy_object_are_refused(tmp_path, marker, hidden_in):
    call = pickle.dumps(hostile_calls(marker)["system"], protocol=2)
    head = b"".join(pickle.dumps(value, protocol=2) for value in (restricted_pickle.LEGACY_MAGIC, 1001, {}, {}))
    path = tmp_path / "a.pt"
    path.write_bytes(call + head if hidden_in == "magic" else head + call)
    with pytest.raises(UserError, match=r"posix\.system"):
        load_weights(path)
    assert not marker.exists()


def floats(numel: int) -> bytes:
    """The persistent id of a storage."""
    parts = (text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), b"J" + struct.pack("<i", numel))
    return b"(" + b"".join(parts) + b"tQ"


INSTRUCTIONS = {
    "text protocol": (b"cos\nsystem\n(S'touch ran'\ntR.", "os.system"),
    "INST": (b"(S'touch ran'\nios\nsystem\n.", "never writes"),
    "OBJ": (b"(c__builtin__\neval\nS'1'\no.", "eval"),
    "OBJ of a builder": (b"(c__builtin__\nset\n]o.", "never writes"),
    "EXT1": (b"\x80\x02\x82\x01.", "never writes"),
    "dotted name": (b"\x80\x04" + text("torch.nn.modules.module") + text("torch.os.system") + b"\x93.", "os.system"),
    "dunder": (b"ctorch.nn.modules.module\n__builtins__\n.", "__builtins__"),
    "module of a like name": (b"cglowing\nWaveGlow\n.", "glowing"),
    "function of torch": (b"ctorch\nload\n.", "torch.load"),
    "call of a class": (b"ctorch.nn.modules.linear\nIdentity\n)R.", "calls 'torch.nn.modules.linear.Identity'"),
    "call of a shell": (b"cglow\nWaveGlow\n)\x81)R.", "calls 'glow.WaveGlow'"),
    "call of a text": (text("touch") + b")R.", "calls 'str'"),
    "NEWOBJ of a text": (text("touch") + b")\x81.", "makes an object of a 'str'"),
    "NEWOBJ of a shell": (b"cglow\nWaveGlow\n)\x81)\x81.", "makes an object of a 'Shell'"),
    "function as an argument": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(c__builtin__\nset\nctorch\nTensor\n]}tR.",
        "calls '__builtin__.set'",
    ),
    "persistent id as text": (b"P/etc/passwd\n.", "outside"),
    "persistent id of a file": (b"(" + text("file") + text("/etc/passwd") + b"tQ.", "outside"),
    "storage of a strange class": (floats(1).replace(b"torch\nFloatStorage", b"glow\nX") + b".", "glow.X"),
    "tensor of strides 0": (REBUILD + b"(" + floats(1) + b"K\x00M\xff\xff\x85K\x00\x85tR.", "larger than its storage"),
}


def unpickle(data: bytes):
    return restricted_pickle.Unpickler(
        io.BytesIO(data), Budget(1000), lambda key, dtype, n: torch.zeros(n, dtype=dtype)
    ).load()


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, reason = INSTRUCTIONS[name]
    with pytest.raises(RefusedError, match=reason.replace(".", r"\.")):
        unpickle(data)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("offset, size", [(1, 1), (0, 2), (-1, 1), (0, -1)])
def test_a_tensor_stays_within_its_storage(offset, size):
    numbers = b"J" + struct.pack("<i", offset) + b"J" + struct.pack("<i", size)
    with pytest.raises((RuntimeError, RefusedError)):
        unpickle(REBUILD + b"(" + floats(1) + numbers + b"\x85K\x01\x85tR.")


@pytest.mark.parametrize("numel", [2**31 - 1, -1])
def test_a_storage_is_not_larger_than_the_file(numel):
    with pytest.raises(ValueError, match=r"larger than the file|where there can be none"):
        unpickle(floats(numel) + b".")


@pytest.mark.parametrize(("dimensions", "is_taken"), [(0, True), (8, True), (9, False)])
def test_a_tensor_has_at_most_eight_dimensions(tmp_path, dimensions, is_taken):
    path = save(tmp_path / "a.pt", torch.ones([1] * dimensions))
    if is_taken:
        assert load(path).shape == torch.Size([1] * dimensions)
    else:
        with pytest.raises(RefusedError, match="a tensor has 9 dimensions"):
            load(path)


@pytest.mark.parametrize("file_format", FORMATS)
def test_parts_of_a_storage_and_empty_ones_are_read(tmp_path, file_format):
    whole = torch.arange(12.0)
    saved = {"a": whole[3:5], "b": whole[2:].view(5, 2).t(), "none": torch.zeros(0, 3), "whole": whole}
    for name, tensor in load(save(tmp_path / "a.pt", saved, file_format)).items():
        assert torch.equal(tensor, saved[name]) and tensor.shape == saved[name].shape


def test_integers_that_hash_alike_are_no_keys():
    modulus = sys.hash_info.modulus
    for key in (0, -1, modulus - 1, 1 - modulus, "a", b"a", None, 1.5, (1, "a")):
        assert pickle_names.checked_key(key) == key
    for key in (modulus, -modulus, (1, modulus), ((1,),), [1]):
        with pytest.raises(RefusedError, match="a key of the kind"):
            pickle_names.checked_key(key)


def test_memo_indices_cost_no_memory():
    """The unpickler in C would reserve 64 GB."""
    assert unpickle(b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_state_never_becomes_behaviour():
    """BUILD with ``__setstate__`` and the like fills an inert dict; on a builder it does nothing."""
    state = b"}(" + b"".join(text(name) + b"cglow\nX\n" for name in ("__setstate__", "__class__", "update")) + b"u"
    shell = unpickle(b"\x80\x02cglow\nX\n)\x81" + state + b"b" + state + b"b.")
    assert type(shell) is Shell and not hasattr(shell, "__setstate__") and callable(shell.update)
    before = dict(vars(pickle_names._tensor))
    unpickle(b"\x80\x02" + REBUILD + state + b"bN" + state + b"\x86b.")
    assert vars(pickle_names._tensor) == before


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = zip_with(tmp_path / "a.pt", text("x" * 10**7) + b".", zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed"):
        load_weights(path)


def test_a_big_endian_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="big-endian"):
        load_weights(zip_with(tmp_path / "a.pt", b"N.", byteorder=b"big"))


def test_a_storage_is_found_only_in_the_archive(tmp_path):
    pickled = floats(1).replace(text("0"), text("../../../etc/passwd")) + b"."
    with pytest.raises(UserError, match="truncated or no checkpoint"):
        load_weights(zip_with(tmp_path / "a.pt", pickled))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_formats_of_torch_are_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "script.pt")
    with pytest.raises(UserError, match="__torch__"):
        load_weights(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "tar.pt", "w") as tar:  # torch before 0.2
        tar.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(UserError, match="no checkpoint"):
        load_weights(tmp_path / "tar.pt")


def test_fewer_storages_than_tensors_are_noticed():
    """Otherwise memory that was never written would pass for weights."""
    parts = [pickle.dumps(value, protocol=2) for value in (restricted_pickle.LEGACY_MAGIC, 1001, {})]
    parts += [REBUILD + b"(" + floats(1) + b"K\x00K\x01\x85K\x01\x85tR.", pickle.dumps([], protocol=2)]
    with pytest.raises(ValueError, match="other storages"):
        restricted_pickle.load(io.BytesIO(b"".join(parts)))


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_stands_beside_weights_is_read(tmp_path, file_format):
    weights = nn.Linear(2, 1).state_dict()
    half = torch.arange(6.0).half().view(2, 3).t()
    tagged = torch.ones(2)
    tagged.tag = "x"
    value = {
        "state": weights, "half": half, "tagged": tagged, "parameter": nn.Parameter(torch.ones(1)),
        "empty": torch.zeros(0, 3), "size": torch.Size([1, 2]), "set": {1, 2}, "bytes": b"\xff", "dtype": torch.float16,
        "device": torch.device("cpu"), "scalar": np.float64(0.5), "array": np.arange(3), "path": Path("a/b"),
        "time": datetime.datetime.now(), "args": argparse.Namespace(lr=0.1), "big": 2**70, "none": None,
        "counts": collections.defaultdict(int, a=1), "optimizer": torch.optim.Adam([torch.ones(1)]),
        "rng": torch.get_rng_state(),
    }  # fmt: skip
    read = load(save(tmp_path / "a.pt", value, file_format))
    assert read.keys() == value.keys()
    for name in ("half", "tagged", "parameter", "empty", "rng"):
        assert torch.equal(read[name], value[name]) and read[name].dtype == value[name].dtype
    assert torch.equal(read["state"]["weight"], weights["weight"])
    assert [read[name] for name in ("size", "set", "bytes", "big")] == [(1, 2), {1, 2}, b"\xff", 2**70]
    assert read["args"].state == {"lr": 0.1} and read["args"].name == "argparse.Namespace"
    assert isinstance(read["array"], Shell) and isinstance(read["optimizer"], Shell)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_module_becomes_a_shell(tmp_path, file_format):
    read = load(save(tmp_path / "a.pt", nn.DataParallel(nn.ReLU()), file_format))
    assert read.name == "torch.nn.parallel.data_parallel.DataParallel"
    assert read.state["_modules"]["module"].name == "torch.nn.modules.activation.ReLU"


def test_texts_of_python_2_are_read():
    """Python 2 wrote its 8-bit texts, names and raw bytes alike, with an instruction of their own."""
    assert unpickle(b"\x80\x02}U\x06weightU\x02\xff\x00s.") == {"weight": "\xff\x00"}


def test_what_schedulers_and_versions_leave_in_a_file_is_harmless(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    torch.save(
        {"scheduler": scheduler.state_dict(), "version": torch.__version__, "a": torch.ones(2)}, tmp_path / "file"
    )
    with open(tmp_path / "file", "rb") as file:
        found = restricted_pickle.load(file)
    assert found["scheduler"]["milestones"] == {3: 1, 5: 1}
    assert torch.equal(found["a"], torch.ones(2))
