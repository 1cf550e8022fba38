"""The names that the pickle of an honest checkpoint holds, and what a call of each builds.

All builders are this file's own: what is called is never what the name means elsewhere.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common.checkpoints.budget import RefusedError

STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

FAMILIES = (
    # Modules, optimizers and loss scalers, of torch and what extends it.
    *("torch.nn.", "torch.optim.", "torch.jit.", "torch.amp.", "torch.cuda.amp.", "torch_npu.", "apex."),
    # The files that define the models in the repositories they come from, and their options.
    *("glow.", "glow_old.", "waveglow.", "tacotron2.", "model.", "models.", "modules.", "layers.", "common."),
    *("hparams.", "utils.", "__main__."),
)
"Modules whose classes may appear; their objects become shells."

NAMES = {
    *(
        "argparse.Namespace",
        "numpy.ndarray",
        "torch.Tensor",
        "torch._tensor.Tensor",
        "torch.torch_version.TorchVersion",
    ),
    *(f"{module}.{name}" for module in ("torch", "torch.cuda") for name in STORAGES),
    *(str(dtype) for dtype in STORAGES.values()),
    *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool")),
    *(f"__builtin__.{name}" for name in ("dict", "list", "int", "long", "float", "unicode", "bool")),
}
"Other names that may appear: classes of shells, and arguments of builders."
MAX_DIMENSIONS = 8
"Most that a tensor may have: PyTorch's loops over dimensions are not made for thousands."


@dataclass(frozen=True, eq=False)
class Global:
    """A name in a pickle, and what a call of it builds, if it may be called."""

    name: str
    build: Callable | None


class Shell(dict):
    """Stands for an object of a class that is not loaded: the class's name and the object's attributes.

    A dict because some such objects are (options with attribute access).
    """

    def __init__(self, name: str, *_: Any):
        super().__init__()
        self.name = name
        self.state: dict = {}

    def __repr__(self) -> str:
        return f"<{self.name}>"  # what it holds may go in circles


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    if len(size) > MAX_DIMENSIONS:
        raise RefusedError(f"a tensor has {len(size)} dimensions")
    # Strides of 0 would let a small file claim terabytes.
    if math.prod(size) > storage.numel():
        raise RefusedError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _tensor_with_attributes(function: Global, kind: Global, args: tuple, attributes: Any) -> Tensor:
    if function.build is not _tensor:
        raise RefusedError(f"it calls {function.name!r}")
    return _tensor(*args)


def _data_of_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def checked_key(key: Any) -> Any:
    """The key of a dict or the item of a set. Hashing some keys takes forever, and many with equal hashes make a dict
    crawl."""
    simple = key is None or isinstance(key, str | bytes | float | Tensor | Global)
    small = isinstance(key, int) and abs(key) < sys.hash_info.modulus
    flat = isinstance(key, tuple) and not any(isinstance(item, tuple) for item in key)
    if not (simple or small or flat):
        raise RefusedError(f"it has a key of the kind {type(key).__name__!r}")
    if flat:
        for item in key:
            checked_key(item)
    return key


def _dict(pairs: Any = (), *_: Any) -> dict:
    return {checked_key(key): value for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)}


def made_set(items: Any = (), *_: Any) -> set:
    return {checked_key(item) for item in items}


BUILDERS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch_npu.utils.storage._rebuild_npu_tensor": _tensor,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch._utils._rebuild_parameter": _data_of_parameter,
    "torch._utils._rebuild_parameter_with_state": _data_of_parameter,
    "torch.nn.parameter.Parameter": _data_of_parameter,
    "torch.Size": tuple,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": _dict,
    "builtins.complex": complex,
    "builtins.slice": slice,
    "builtins.set": made_set,
    "__builtin__.set": made_set,
    "_codecs.encode": lambda text, *_: text.encode("latin1"),  # how protocol 2 writes bytes
}
# Things that are stored beside the weights and built by a call: nothing here needs their values.
for _name in (
    *("torch.device", "torch.nn.backends.thnn._get_thnn_function_backend", "torch_npu.npu._format.Format"),
    *("numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    *("datetime.datetime", "datetime.timedelta", "types.SimpleNamespace"),
):
    BUILDERS[_name] = partial(Shell, _name)
