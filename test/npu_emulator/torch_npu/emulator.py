"""What tests tell the emulated NPU and ask of it. The real torch_npu has no such module."""

import atexit
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from torch_npu import _C, limits

CARD = os.environ.get("NPU_EMULATOR_CARD") or "Ascend910A"
CANN = limits.version_of(os.environ.get("NPU_EMULATOR_CANN") or "7.0")
_rows = limits.holding(CARD, CANN)
REFUSED = frozenset(name for row in _rows for name in row.names)
"Operators that this card refuses whatever they are given; names as in ``operator_counts``."


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


def refuse_as_the_card() -> None:
    """All that ``limits`` says of it."""
    _C.refuse(set(REFUSED))
    _C.set_limits(limits.with_kernel(CANN), dict(row.convolution for row in _rows if row.convolution))
    _C.hold_limits(True)


@contextmanager
def refusing(names: Iterable[str]) -> Iterator[None]:
    """For a while refuse these operators and nothing else."""
    before, held = _C.refuse(set(names)), _C.hold_limits(False)
    try:
        yield
    finally:
        _C.refuse(before)
        _C.hold_limits(held)


@contextmanager
def saturating(wanted: bool = True) -> Iterator[None]:
    """For a while results are saturated: the largest number for inf and 0 for nan, and a flag tells of it.

    All that Atlas training products, the first generation, can do, and never A2 and later by default (torch_npu's
    documentation of INF_NAN_MODE_ENABLE, CANN's of aclrtFloatOverflowMode).
    """
    before = _C.set_saturating(wanted)
    _C.clear_overflow()
    try:
        yield
    finally:
        _C.set_saturating(before)


@contextmanager
def random_numbers_of_the_cpu() -> Iterator[None]:
    """For a while the same seed gives the devices the CPU's random numbers, which a real card has not."""
    before = _C.draw_like_the_cpu(True)
    try:
        yield
    finally:
        _C.draw_like_the_cpu(before)


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
