"""``torch_npu.npu.utils``: how overflow shows."""


def is_support_inf_nan() -> bool:
    """As inf, like on a 910B1 and later: the saturating arithmetic of cards before is not emulated."""
    return True


def get_npu_overflow_flag() -> bool:
    """Only where overflow does not show as inf; the real one refuses in the same way."""
    raise RuntimeError("Unsupported api when soc_version >= Ascend910B1, please use npu_check_overflow")


clear_npu_overflow_flag = get_npu_overflow_flag
