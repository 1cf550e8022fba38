"""The random generators that a process draws from, on the CPU and on its card."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.device import Device, torch_module


def rng_state(device: Device) -> dict[str, torch.Tensor]:
    """The states of the random generators this process draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch_module(device.type).get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: Device) -> None:
    """Restore what ``rng_state`` returned; the state of another kind of device is ignored."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        torch_module(device.type).set_rng_state(state[device.type])


@contextmanager
def own_random_numbers(seed: int, device: Device) -> Iterator[None]:
    """Inside, random numbers follow from this seed; outside, it is as if none had been drawn."""
    before = rng_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(before, device)
