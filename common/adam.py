"""The fastest Adam of a device; always the same mathematics."""

import importlib
import logging
from collections.abc import Iterable

import torch
import torch.optim.optimizer as torch_optimizer

from common.device import Device
from common.program import first_line

log = logging.getLogger(__name__)


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
