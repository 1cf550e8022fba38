"""The device: an Ascend NPU, a CUDA card or the CPU. Only this file and layers/npu.py call device-specific
interfaces."""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
import torch.optim.optimizer as torch_optimizer
import torch.profiler

from common.program import UserError, first_line

log = logging.getLogger(__name__)

Result = TypeVar("Result")

KINDS = ("npu", "cuda", "cpu")
RUNS_BEFORE_A_RECORDING = 2
"Libraries set themselves up in these runs, which they must not do while a CUDA graph is recorded."
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
        _torch_module(kind).set_device(index)
    except RuntimeError as error:
        if not TAKEN.search(str(error)):
            raise
        raise UserError(
            f"{kind} card {index} is taken by another process (npu-smi info lists them): end that one, wait,"
            " or choose another --device_id"
        ) from error


def _torch_module(kind: str) -> Any:
    """torch.cuda, or torch.npu, which is there once torch_npu is imported."""
    return getattr(torch, kind)


def _has_bfloat16(kind: str, index: int) -> bool:
    """Whether this repository computes in bfloat16 there: on CUDA cards from compute capability 8 on (A100).

    On an NPU it is float16, as in the Ascend port.
    """
    return kind == "cpu" or (kind == "cuda" and torch.cuda.get_device_capability(index) >= (8, 0))


def device_count(kind: str) -> float:
    """How many cards of this kind there are; the CPU has no such limit."""
    return float("inf") if kind == "cpu" else _torch_module(kind).device_count()


def make_adam(
    params: Iterable[torch.nn.Parameter], lr: float, device: Device, weight_decay: float = 0.0, under_apex: bool = False
) -> torch.optim.Optimizer:
    """The fastest Adam of the device, named in the log; always the same mathematics.

    ``under_apex``: apex.amp will take it over. Zero gradients with its own ``zero_grad()`` only:
    NpuFusedAdam keeps using the memory of the first ones, which ``model.zero_grad()`` gives away.
    """
    params = list(params)
    # apex's works only under apex.amp, and apex.amp renews the gradients that torch_npu's would keep using.
    module = "apex.optimizers" if under_apex else "torch_npu.optim"
    try:
        if device.type == "npu":
            name = f"NpuFusedAdam of {module}"
            optimizer = importlib.import_module(module).NpuFusedAdam(params, lr=lr, weight_decay=weight_decay)
        else:
            name = "torch's fused Adam"
            optimizer = torch.optim.Adam(params, lr=lr, weight_decay=weight_decay, fused=True)
    # Not there, or not with this torch: before 2.4 it has no fused Adam for the CPU.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        foreach = has_foreach(device)
        name = f"torch's {'foreach' if foreach else 'plain'} Adam, not {name} ({first_line(error)})"
        optimizer = torch.optim.Adam(params, lr=lr, weight_decay=weight_decay, foreach=foreach)
    log.info("optimizer: %s", name)
    return optimizer


def count_steps(optimizer: torch.optim.Optimizer) -> None:
    """Turn the step counts of a loaded state into plain numbers, if torch_npu's Adam is the one that counts them.

    It adds 1 in place to the count of every parameter, and once more to the first one, which it uses for all: a tensor
    would grow by 2.
    """
    if type(optimizer).__name__ == "NpuFusedAdam":
        for state in optimizer.state.values():
            state["step"] = int(state["step"])


def has_foreach(device: Device) -> bool:
    """Whether the device has operators on lists of tensors.

    Here torch_npu tells torch.optim so, for the card and the CANN that it finds: first-generation cards have none, nor
    does any card before CANN 8.0.RC3.
    """
    tell = getattr(torch_optimizer, "_get_foreach_kernels_supported_devices", list)
    return device.type != "npu" or "npu" in tell()


def set_jit_compile(device: Device, wanted: bool) -> None:
    """Have an NPU compile operators for each new shape, or take those that come compiled.

    A card of the first generation compiles by itself, over and over where shapes change, as in Tacotron2.
    """
    if device.type == "npu":
        _torch_module("npu").set_compile_mode(jit_compile=wanted)


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
    """Keep a card from rounding float32 convolutions to a shorter format, HF32 or TF32, as it does by default."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    elif device.type == "npu":
        for kind in ("conv", "matmul"):
            if hasattr(_torch_module("npu"), kind):  # not on the releases of 5.0.3's time
                getattr(_torch_module("npu"), kind).allow_hf32 = False


def use_tf32(device: Device, products: bool = True) -> None:
    """Let float32 convolutions round their factors to 10 bits, which a CUDA card computes many times as fast, and
    matrix products, which PyTorch does not by default."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = products


class Stream:
    """Work on a CUDA card that runs alongside other streams; on other devices it is ordinary work."""

    def __init__(self, device: Device, first: bool):
        """``first``: whether its work goes before that of other streams."""
        on_card = device.type == "cuda"
        self._stream = torch.cuda.Stream(priority=-1 if first else 0) if on_card else None
        self._pool = torch.cuda.graph_pool_handle() if on_card else None

    def active(self) -> AbstractContextManager:
        """Inside, this thread's work goes to this stream."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def recorded(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """``work`` as a CUDA graph: all its kernels are launched at once, on the memory they were recorded with."""
        if self._stream is None:
            return work
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with self.active():
            for _ in range(RUNS_BEFORE_A_RECORDING):
                work()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                result = work()
        torch.cuda.synchronize()

        def replay() -> Result:
            graph.replay()
            return result

        return replay


def clear_overflow_flag(device: Device) -> None:
    """Begin to watch for overflow on a card that hides it, see ``overflow_flag``."""
    if _saturates(device):
        _torch_module("npu").utils.clear_npu_overflow_flag()


def overflow_flag(device: Device) -> bool:
    """Whether float16 overflowed since ``clear_overflow_flag``, where results do not show it:
    an Ascend 910 before the 910B1 gives the largest number in the place of inf."""
    return _saturates(device) and _torch_module("npu").utils.get_npu_overflow_flag()


def _saturates(device: Device) -> bool:
    return device.type == "npu" and not _torch_module("npu").utils.is_support_inf_nan()


def card_name(device: Device) -> str:
    """The card's name, such as Ascend910A; empty for the CPU."""
    return "" if device.type == "cpu" else _torch_module(device.type).get_device_name(device.torch_device)


def peak_memory(device: Device) -> int:
    """The most bytes that this process has needed so far: on a card for its tensors, on the CPU for everything."""
    if device.type == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return _torch_module(device.type).max_memory_allocated(device.torch_device)


def reset_peak_memory(device: Device) -> None:
    """Start measuring ``peak_memory`` afresh, on a card."""
    if device.type != "cpu":
        _torch_module(device.type).empty_cache()
        _torch_module(device.type).reset_peak_memory_stats(device.torch_device)


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


def rng_state(device: Device) -> dict[str, torch.Tensor]:
    """The states of the random generators this process draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = _torch_module(device.type).get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: Device) -> None:
    """Restore what ``rng_state`` returned; the state of another kind of device is ignored."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        _torch_module(device.type).set_rng_state(state[device.type])


@contextmanager
def own_random_numbers(seed: int, device: Device) -> Iterator[None]:
    """Inside, random numbers follow from this seed; outside, it is as if none had been drawn."""
    before = rng_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(before, device)


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
    return "" if _torch_module("npu").is_available() else "no NPU is visible to torch_npu"


def _misfit() -> str:
    """What is wrong with the release of an installed torch_npu; empty if nothing is."""
    try:
        version = importlib.metadata.version("torch-npu")
    except importlib.metadata.PackageNotFoundError:
        return ""
    if version.split(".")[:2] == torch.__version__.split(".")[:2]:
        return ""
    return f"torch_npu {version} does not fit torch {torch.__version__}: their first two numbers must be the same"
