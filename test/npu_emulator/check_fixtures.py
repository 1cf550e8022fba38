"""What the checks of this folder have in common: pytest's fixtures, as a plugin."""

import logging
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from torch_npu import emulator

from common.device import pick_device
from common.distributed import ranks


@pytest.fixture
def fresh():
    torch.set_num_threads(2)
    torch.manual_seed(0)
    torch.npu.set_device(0)
    emulator.reset()


@pytest.fixture
def device(caplog):
    torch.set_num_threads(2)
    caplog.set_level(logging.INFO)
    emulator.reset()
    return pick_device("npu", ranks().local_rank)


@pytest.fixture
def apex(monkeypatch):
    """A place where apex is installed."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "unit/fake_apex")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "apex"]:
        del sys.modules[name]
