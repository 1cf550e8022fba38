"""``torch.npu.amp``: automatic mixed precision."""

import torch


class autocast(torch.autocast):  # noqa: N801
    """``torch.autocast("npu")``."""

    def __init__(self, enabled: bool = True, dtype: torch.dtype = torch.float16, cache_enabled: bool = True):
        super().__init__("npu", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class GradScaler(torch.amp.GradScaler):
    """``torch.amp.GradScaler("npu")`` with a switch for a loss scale that never changes."""

    def __init__(self, init_scale: float = 2.0**16, dynamic: bool = True, **options):
        if not dynamic:
            options |= {"growth_factor": 1.0 + 1e-9, "backoff_factor": 1.0 - 1e-9, "growth_interval": 2**31 - 1}
        super().__init__("npu", init_scale=init_scale, **options)
