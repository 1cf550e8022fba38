"""``torch_npu.npu.utils``: how overflow shows."""

import warnings

from torch_npu import _C


def is_support_inf_nan() -> bool:
    """As inf, unless arithmetic saturates."""
    return not _C.saturates()


def get_npu_overflow_flag() -> bool:
    """Whether a result was saturated since the flag was cleared; the real one refuses in the same way."""
    if is_support_inf_nan():
        raise RuntimeError("Unsupported api when soc_version >= Ascend910B1, please use npu_check_overflow")
    return _C.overflowed()


def clear_npu_overflow_flag() -> None:
    if is_support_inf_nan():
        warnings.warn("When soc_version >= Ascend910B1, clear_npu_overflow_flag is useless.", stacklevel=2)
    _C.clear_overflow()
