"""What tests tell the emulated NPU and ask of it. The real torch_npu has no such module."""

import atexit
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from torch_npu import _C

REFUSED = frozenset(
    {
        # 1-D convolutions, so that whoever goes without them shows it
        "conv1d", "conv1d_backward", "conv_transpose1d", "conv_transpose1d_backward",
        # Tensor.unfold, torch.nn.functional.unfold and fold
        "unfold", "unfold_backward", "im2col", "col2im",
        # what logdet, slogdet, det and lu are made of
        "_linalg_slogdet", "_linalg_det", "linalg_lu", "linalg_lu_factor_ex", "linalg_lu_solve", "lu_unpack",
        # torch.linalg.inv
        "linalg_inv_ex",
    }
)  # fmt: skip
"What CANN 5.0.3 could not run, or not at speed; names as in ``operator_counts``."


@dataclass(frozen=True)
class Copies:
    """Copies since ``reset``."""

    host_to_device: int
    device_to_host: int
    device_to_device: int
    scalars_read: int
    "By ``item()``, ``float(tensor)`` or ``if tensor:``; not part of ``device_to_host``."
    host_to_device_bytes: int
    device_to_host_bytes: int


def operator_counts() -> dict[str, int]:
    """How often each operator ran on the devices since ``reset``.

    Names are those of aten without overload ("mul"), convolutions by dimension ("conv2d", "conv2d_backward"). Views
    and copies are not operators here, composite operators count as their parts, a layer or cell of an LSTM as one.
    """
    return _C.operator_counts()


def copies() -> Copies:
    return Copies(**_C.copies())


def reset() -> None:
    """Start counting anew."""
    _C.reset_counts()


def refuse(names: Iterable[str]) -> set[str]:
    """Refuse these operators and no others; returns those refused before."""
    return _C.refuse(set(names))


@contextmanager
def refusing(names: Iterable[str]) -> Iterator[None]:
    """``refuse`` for a while."""
    before = refuse(names)
    try:
        yield
    finally:
        refuse(before)


def write_counts_at_exit(path: str | None) -> None:
    """Write a JSON file of the program, its cores, the operators and the copies when this process ends.

    ``{rank}`` and ``{pid}`` in ``path`` are replaced, so that several processes can each have a file.
    """
    if not path:
        return
    file = Path(path.replace("{rank}", os.environ.get("RANK", "0")).replace("{pid}", str(os.getpid())))

    def write() -> None:
        counts = {"program": sys.argv, "operators": operator_counts(), "copies": asdict(copies())}
        counts["cores"] = sorted(os.sched_getaffinity(0))
        unfinished = file.with_name(f"{file.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(counts, indent=1))
        unfinished.replace(file)

    atexit.register(write)
    owner, leave = os.getpid(), os._exit

    def leave_in_order(code: int) -> None:
        """A rank ends so, and nothing that is registered is called."""
        if os.getpid() == owner:
            write()
        leave(code)

    os._exit = leave_in_order
