"""``torch.npu``: the part of its interface that is emulated."""

import os
from contextlib import ContextDecorator
from types import SimpleNamespace

import torch

from torch_npu import _C
from torch_npu.npu import amp as amp
from torch_npu.npu import utils as utils

DeviceLike = torch.device | str | int | None

conv, matmul = SimpleNamespace(allow_hf32=True), SimpleNamespace(allow_hf32=False)
"The real ones' defaults; nothing is ever rounded to HF32 here."

jit_compiles = True
"Whether operators would be compiled on line, as a card of the first generation does by itself."

device_count = _C.device_count
current_device = _C.current_device


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def init() -> None:
    """There is nothing to start."""


def _lazy_init() -> None:
    """As ``init``, for torch."""


def _is_in_bad_fork() -> bool:
    """Never: host memory survives a fork."""
    return False


def set_device(device: DeviceLike) -> None:
    index = _index(device)
    if str(index) in os.environ.get("NPU_EMULATOR_TAKEN", "").split(","):
        raise RuntimeError(
            "Initialize: NPU function error: aclrtSetDevice, error code is 507033\n"
            "EL0005: [PID: 1] Resource_Busy(EL0005): The resources are busy."
        )
    _C.set_device(index)
    _take_share_of_cores()


def _take_share_of_cores() -> None:
    """As the real one does by CPU_AFFINITY_CONF=1: to each card as many cores, in their order."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // max(1, device_count())
    first = current_device() * share
    if os.environ.get("CPU_AFFINITY_CONF", "0").startswith("1") and share:
        os.sched_setaffinity(0, cores[first : first + share])


class device(ContextDecorator):  # noqa: N801
    """Makes a device the current one for a while."""

    def __init__(self, device: DeviceLike):
        self.index = _index(device)

    def __enter__(self):
        self.before = current_device()
        _C.set_device(self.index)
        return self

    def __exit__(self, *error):
        _C.set_device(self.before)


def synchronize(device: DeviceLike = None) -> None:
    """All work is done when a call returns."""


def empty_cache() -> None:
    """No memory is kept back."""


def get_device_name(device: DeviceLike = None) -> str:
    return f"{os.environ.get('NPU_EMULATOR_CARD') or 'Ascend910A'} (emulated)"


def set_compile_mode(jit_compile: bool = False) -> None:
    """Nothing is compiled; what was wanted is remembered."""
    global jit_compiles
    jit_compiles = jit_compile


def manual_seed(seed: int) -> None:
    _C.manual_seed(-1, seed % 2**64)


def manual_seed_all(seed: int) -> None:
    for index in range(device_count()):
        _C.manual_seed(index, seed % 2**64)


def get_rng_state(device: DeviceLike = None) -> torch.Tensor:
    return _C.get_rng_state(_index(device))


def set_rng_state(state: torch.Tensor, device: DeviceLike = None) -> None:
    _C.set_rng_state(_index(device), state)


def memory_allocated(device: DeviceLike = None) -> int:
    return _C.memory_allocated(_index(device))


def max_memory_allocated(device: DeviceLike = None) -> int:
    return _C.max_memory_allocated(_index(device))


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    _C.reset_peak_memory_stats(_index(device))


def get_amp_supported_dtype() -> list[torch.dtype]:
    """What torch.autocast may compute in."""
    return [torch.float16, torch.bfloat16]


def _index(device: DeviceLike) -> int:
    """Of the device, the current one where none is named."""
    if device is None:
        return current_device()
    if not isinstance(device, int):
        device = torch.device(device)
        if device.type != "npu":
            raise ValueError(f"Expected an npu device, but got: {device}")
        device = current_device() if device.index is None else device.index
    if not 0 <= device < device_count():
        raise RuntimeError(f"NPU error: invalid device ordinal {device}, there are {device_count()} devices")
    return device
