"""Read files of torch.save without running anything in them.

A pickle is a small program: it names functions and classes and has them called. Here a name stays a
name, a ``Global``; nothing is imported. Only three instructions can act on one, and each has a rule:

- REDUCE calls a function: only those of ``pickle_names.BUILDERS`` are ever called.
- NEWOBJ makes an object: an empty ``Shell``, whatever its class.
- BUILD fills an object: a ``Shell`` keeps its attributes to look at; anything else ignores it.

A name that no honest checkpoint has raises ``RefusedError``, even where it would only be mentioned. So does a file
that takes more memory or time than its size allows (``Budget``).
"""

import io
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from common.checkpoints.budget import ENTRY, Budget, Metered, RefusedError
from common.checkpoints.pickle_names import (
    BUILDERS,
    FAMILIES,
    NAMES,
    STORAGES,
    Global,
    Shell,
    checked_key,
    made_set,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Unpickler(pickle._Unpickler):
    """pickle's own unpickler with the rules above. The Python version, since the one in C trusts sizes in the file."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    "That of ``stack``."
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: BinaryIO, budget: Budget, read_storage: Callable[..., Tensor] | None = None):
        """``read_storage(key, dtype, numel)`` gives a flat tensor."""
        super().__init__(Metered(file, budget), encoding="latin1")
        self.budget = budget
        self.read_storage = read_storage
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        in_family = full.startswith(FAMILIES) and name.isidentifier() and not name.startswith("__")
        if not (in_family or full in BUILDERS or full in NAMES):
            raise RefusedError(f"it asks for {full[:100]!r}")
        return Global(full, BUILDERS.get(full))

    def persistent_load(self, pid: Any) -> Global | Tensor:
        match pid:
            case ("module", Global() as kind, *_):  # legacy files: a class with its source text
                return kind
            case ("storage", Global(name=name), str(key), _, int(numel), *view):
                dtype = STORAGES.get(name.rpartition(".")[2])
                if dtype is None:
                    raise RefusedError(f"it has storage of the kind {name!r}")
                storage = self._storage(key, dtype, numel)
                if view and view[0]:
                    _, offset, length = view[0]
                    return storage[offset : offset + length]
                return storage
        raise RefusedError("it refers to something outside that is no storage")

    def _storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if key not in self.storages:
            if numel < 0 or self.read_storage is None:
                raise ValueError("tensors where there can be none")
            self.budget.spend_storage(numel * dtype.itemsize)
            self.storages[key] = self.read_storage(key, dtype, numel)
        return self.storages[key]

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function.build is None:
            raise RefusedError(f"it calls {getattr(function, 'name', type(function).__name__)!r}")
        made = function.build(*args)
        self.budget.spend_tensor(made.nbytes) if isinstance(made, Tensor) else self.budget.spend(sys.getsizeof(made))
        self.append(made)

    def load_newobj(self) -> None:
        _, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global):
            raise RefusedError(f"it makes an object of a {type(kind).__name__!r}")
        self.append(Shell(kind.name))

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(state, tuple) and len(state) == 2:  # attributes, and those in slots
            state = state[0]
        if isinstance(target, Shell) and isinstance(state, dict):
            target.state = state

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise RefusedError("it sets an item of what is no dict")
        for key, value in zip(items[::2], items[1::2]):
            self.budget.spend(ENTRY)
            self.stack[-1][checked_key(key)] = value

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(made_set(items))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def load_frame(self) -> None:
        self.read(8)  # the length: a hint for reading ahead, which would read instructions unmetered

    def refuse_opcode(self) -> None:
        raise RefusedError("it has an instruction that torch never writes")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.FRAME[0]] = load_frame
    for _opcode in (
        *(pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4),
        *(pickle.FROZENSET, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        dispatch[_opcode[0]] = refuse_opcode


def load(file: BinaryIO, with_tensors: bool = True) -> Any:
    """What torch.save put into the file: tensors on the CPU, plain Python values, and shells.

    Unless ``with_tensors``, the tensors are on the device meta, and their data in the file are not read.
    Raises ``RefusedError``, or nearly anything else if the file is damaged or something else.
    """
    size = file.seek(0, 2)
    file.seek(0)
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    return (_load_zip if is_zip else _load_legacy)(file, Budget(size), with_tensors)


def _load_zip(file: BinaryIO, budget: Budget, with_tensors: bool) -> Any:
    """The format since torch 1.6: ``<name>/data.pkl`` and a ``<name>/data/<key>`` for each storage."""
    archive = zipfile.ZipFile(file)
    [main] = [name for name in archive.namelist() if re.fullmatch(r"[^/]*/data\.pkl", name)]
    folder = main.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _read_member(archive, f"{folder}byteorder") != b"little":
        raise RefusedError("it was written on a big-endian machine")

    def read_storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if not with_tensors:
            return torch.empty(numel, dtype=dtype, device="meta")
        return _from_bytes(_read_member(archive, f"{folder}data/{key}"), dtype, numel)

    return Unpickler(io.BytesIO(_read_member(archive, main)), budget, read_storage).load()


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member. BadZipFile if its CRC shows that they are not those that were written."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:  # then it may be a bomb
        raise RefusedError("it is compressed, which torch never does")
    return archive.read(info)


def _load_legacy(file: BinaryIO, budget: Budget, with_tensors: bool) -> Any:
    """The format before that: five pickles, of which the fourth is the object, then the storages one by one."""
    magic, _version, _system = (Unpickler(file, budget).load() for _ in range(3))
    if magic != LEGACY_MAGIC:
        raise ValueError("no file of torch.save")
    device = "cpu" if with_tensors else "meta"
    unpickler = Unpickler(file, budget, lambda key, dtype, numel: torch.zeros(numel, dtype=dtype, device=device))
    contents = unpickler.load()
    if not with_tensors:
        return contents
    keys = Unpickler(file, budget).load()
    if set(keys) != unpickler.storages.keys():
        raise ValueError("other storages than tensors")
    for key in keys:
        storage = unpickler.storages[key]
        if struct.unpack("<q", file.read(8))[0] != len(storage):
            raise ValueError("a storage of another length than its tensor's")
        storage.copy_(_from_bytes(file.read(storage.nbytes), storage.dtype, len(storage)))
    return contents


def _from_bytes(data: bytes, dtype: torch.dtype, numel: int) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype, count=numel) if numel else torch.zeros(0, dtype=dtype)
