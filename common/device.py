"""The device: an Ascend NPU, a CUDA card or the CPU.

Only this file and those that it names call device-specific interfaces: adam.py, cuda_graph.py, random_numbers.py and
layers/npu.py.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
import torch.profiler

from common.program import UserError, first_line

log = logging.getLogger(__name__)

Result = TypeVar("Result")

KINDS = ("npu", "cuda", "cpu")
CANN_ROOT = Path("/usr/local/Ascend")
CANN_LAYOUTS = ("cann", "ascend-toolkit/latest", "nnae/latest")
"Where to find a CANN that no variable names: 8.5 and later, an older one, the part that only runs networks."
OLDEST_CANN = (7, 0)
"What PyTorch 2.1 needs, the oldest that this code runs on."
TAKEN = re.compile("EL0005|EJ0001|Resource_Busy|resources are busy")
"Part of CANN's error for a card that another process is using."
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"Constants of glibc's malloc.h."


@dataclass(frozen=True)
class Device:
    """Where a process computes."""

    type: str
    "npu, cuda or cpu."
    torch_device: torch.device
    "With the index of the card."
    backend: str
    "Backend of torch.distributed: hccl, nccl or gloo."
    half: torch.dtype
    "The half precision of O1 and O2: bfloat16, which has float32's range, where the device computes it fast."
    amp: str
    "The amp level of fp16_run: the Ascend port's on an NPU, NVIDIA's on CUDA, none where it would not pay."
    why: str
    "For the log: why this one."


def pick_device(wanted: str = "auto", index: int = 0) -> Device:
    """The device ``wanted`` (auto: npu, else cuda, else cpu), card ``index`` of it, made current.

    Raises UserError if it is not there or has no such card.
    """
    if wanted not in ("auto", *KINDS):
        raise UserError(f"--device is {wanted!r}, must be auto, {', '.join(KINDS)}")
    missing = {}
    for kind in KINDS if wanted == "auto" else (wanted,):
        missing[kind] = _why_missing(kind)
        if not missing[kind]:
            break
    if missing[kind]:
        raise UserError(f"--device={wanted}: {missing[kind]}; --device=auto takes what is there")
    if index >= device_count(kind):
        raise UserError(
            f"{kind} card {index} was asked for, but this machine has {device_count(kind)}:"
            " start fewer processes (--nproc) or choose another --device_id"
        )
    if kind != "cpu":
        _take_card(kind, index)
    passed_over = [reason for reason in missing.values() if reason]
    return Device(
        type=kind,
        torch_device=torch.device("cpu") if kind == "cpu" else torch.device(kind, index),
        backend={"npu": "hccl", "cuda": "nccl", "cpu": "gloo"}[kind],
        half=torch.bfloat16 if _has_bfloat16(kind, index) else torch.float16,
        amp={"npu": "O2", "cuda": "O1", "cpu": "O0"}[kind],
        why="as asked" if wanted != "auto" else "; ".join(passed_over) or "the first choice",
    )


def _take_card(kind: str, index: int) -> None:
    """Make a card the current one; UserError if another process uses it exclusively."""
    try:
        torch_module(kind).set_device(index)
    except RuntimeError as error:
        if not TAKEN.search(str(error)):
            raise
        raise UserError(
            f"{kind} card {index} is taken by another process (npu-smi info lists them): end that one, wait,"
            " or choose another --device_id"
        ) from error


def torch_module(kind: str) -> Any:
    """torch.cuda, or torch.npu, which is there once torch_npu is imported."""
    return getattr(torch, kind)


def _has_bfloat16(kind: str, index: int) -> bool:
    """Whether this repository computes in bfloat16 there: on CUDA cards from compute capability 8 on (A100).

    On an NPU it is float16, as in the Ascend port.
    """
    return kind == "cpu" or (kind == "cuda" and torch.cuda.get_device_capability(index) >= (8, 0))


def device_count(kind: str) -> float:
    """How many cards of this kind there are; the CPU has no such limit."""
    return float("inf") if kind == "cpu" else torch_module(kind).device_count()


def set_jit_compile(device: Device, wanted: bool) -> None:
    """Have an NPU compile operators for each new shape, or take those that come compiled.

    A card of the first generation compiles by itself, over and over where shapes change, as in Tacotron2.
    """
    if device.type == "npu":
        torch_module("npu").set_compile_mode(jit_compile=wanted)


def profiler_module(device: Device) -> ModuleType:
    """torch.profiler, or torch_npu's module of the same interface."""
    if device.type == "npu" and importlib.util.find_spec("torch_npu.profiler"):
        return importlib.import_module("torch_npu.profiler")
    return torch.profiler


def keep_freed_memory(device: Device) -> None:
    """Have a process that computes on the CPU keep the memory that it frees.

    Getting it from the system again, page by page, takes a tenth of the time of a training step.
    """
    if device.type != "cpu":
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc
        return
    # Older ones take no more than 32 MiB. The second option alone makes things worse: it fixes the first at 128 KiB.
    if set_option(M_MMAP_THRESHOLD, 2**30) or set_option(M_MMAP_THRESHOLD, 2**25):
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def use_exact_float32(device: Device) -> None:
    """Keep a card from rounding the factors of float32 convolutions and products to a shorter format, HF32 or TF32. By
    default it does in convolutions."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    elif device.type == "npu":
        for kind in ("conv", "matmul"):
            if hasattr(torch_module("npu"), kind):  # not on the releases of 5.0.3's time
                getattr(torch_module("npu"), kind).allow_hf32 = False


def use_tf32(device: Device, products: bool = True) -> None:
    """Let float32 convolutions round their factors to 10 bits, which a CUDA card computes many times as fast, and
    matrix products, which PyTorch does not by default."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = products


def clear_overflow_flag(device: Device) -> None:
    """Begin to watch for overflow on a card that hides it, see ``overflow_flag``."""
    if _saturates(device):
        torch_module("npu").utils.clear_npu_overflow_flag()


def overflow_flag(device: Device) -> bool:
    """Whether float16 overflowed since ``clear_overflow_flag``, where results do not show it:
    an Ascend 910 before the 910B1 gives the largest number in the place of inf."""
    return _saturates(device) and torch_module("npu").utils.get_npu_overflow_flag()


def _saturates(device: Device) -> bool:
    return device.type == "npu" and not torch_module("npu").utils.is_support_inf_nan()


def card_name(device: Device) -> str:
    """The card's name, such as Ascend910A; empty for the CPU."""
    return "" if device.type == "cpu" else torch_module(device.type).get_device_name(device.torch_device)


def peak_memory(device: Device) -> int:
    """The most bytes that this process has needed so far: on a card for its tensors, on the CPU for everything."""
    if device.type == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return torch_module(device.type).max_memory_allocated(device.torch_device)


def reset_peak_memory(device: Device) -> None:
    """Start measuring ``peak_memory`` afresh, on a card."""
    if device.type != "cpu":
        torch_module(device.type).empty_cache()
        torch_module(device.type).reset_peak_memory_stats(device.torch_device)


def cann_version() -> tuple[int, ...] | None:
    """(major, minor) of the installed CANN, if it can be found out."""
    named = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")
    homes = [Path(named)] if named else [CANN_ROOT / layout for layout in CANN_LAYOUTS]
    files = ("*/ascend_*_install.info", "ascend_*_install.info", "version.cfg")
    for path in (path for home in homes for pattern in files for path in sorted(home.glob(pattern))):
        try:
            text = path.read_text(errors="replace")
        except OSError:  # not to be read by this user, or no file
            continue
        found = re.search(r"version=\[?(?:[\d.]+:)?(\d+)\.(\d+)", text)
        if found:
            return int(found[1]), int(found[2])
    return None


def _why_missing(kind: str) -> str:
    """Why the device cannot be used; empty if it can."""
    if kind == "cpu":
        return ""
    if kind == "cuda":
        return "" if torch.cuda.is_available() else "no CUDA card is visible to PyTorch"
    if not hasattr(torch, "npu"):
        version = cann_version()
        if version and version < OLDEST_CANN:
            have, need = (".".join(map(str, each)) for each in (version, OLDEST_CANN))
            return f"CANN {have} is too old: PyTorch 2.1, the oldest that runs here, needs CANN {need} or later"
        if misfit := _misfit():  # loaded all the same, it might end the process without a word
            return misfit
        try:
            importlib.import_module("torch_npu")
        except ModuleNotFoundError:
            return "torch_npu is not installed"
        # Without CANN's libraries it fails with OSError, beside CUDA with RuntimeError.
        except (ImportError, OSError, RuntimeError) as error:
            return f"torch_npu does not load ({first_line(error)}); was test/env_npu.sh sourced?"
    return "" if torch_module("npu").is_available() else "no NPU is visible to torch_npu"


def _misfit() -> str:
    """What is wrong with the release of an installed torch_npu; empty if nothing is."""
    try:
        version = importlib.metadata.version("torch-npu")
    except importlib.metadata.PackageNotFoundError:
        return ""
    if version.split(".")[:2] == torch.__version__.split(".")[:2]:
        return ""
    return f"torch_npu {version} does not fit torch {torch.__version__}: their first two numbers must be the same"
