"""How Triton's model of ``speech`` fills up texts and spectrograms, so that clips of other lengths share a batch."""

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def speech_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    monkeypatch.delitem(sys.modules, "tools.deploy.triton.speech_model", raising=False)
    yield importlib.import_module("tools.deploy.triton.speech_model")
    sys.modules.pop("tools.deploy.triton.speech_model", None)


@pytest.mark.parametrize(("length", "filled"), [(1, 64), (63, 64), (64, 64), (65, 128), (128, 128)])
def test_the_last_axis_grows_to_the_next_multiple_and_no_further(speech_model, length, filled):
    array = np.arange(2 * length, dtype=np.float32).reshape(1, 2, length)
    padded = speech_model.padded(array, 64, -7.0)
    assert padded.shape == (1, 2, filled)
    assert (padded[..., :length] == array).all()
    assert (padded[..., length:] == -7.0).all()
