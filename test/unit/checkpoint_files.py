"""The reference's checkpoint files, and what is asked of them."""

from functools import cache
from pathlib import Path

import torch

from common.checkpoints.interchange import fitted, load_weights, read
from common.config_reading import from_dict
from conftest import ROOT
from tools import convert_checkpoint
from tools.convert_checkpoint import FORMS, to_native
from waveglow.config import Config, build_model

DATA = ROOT / "test/data/reference"
WAVEGLOW_FILES = [
    "waveglow.pt",
    "waveglow_nvidia_whole_module.pt",
    "waveglow_nvidia_whole_module_no_weightnorm.pt",
    "waveglow_ascend.pt",
    "waveglow_dle.pt",
]
TACOTRON2_FILES = ["tacotron2_nvidia.pt", "tacotron2_dle.pt"]


@cache
def loaded(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same_weights(given: dict, expected: dict):
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        assert torch.equal(tensor, expected[name]), name
        assert tensor.dtype == expected[name].dtype and tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.nbytes  # independent of the file and of each other


def assert_same_outputs(path: Path, numbers: dict):
    """The model built and filled from the file computes the reference's numbers, both ways."""
    config, weights = load_weights(path, "waveglow")
    model = build_model(from_dict(Config, config))
    model.load_state_dict(fitted(path, weights, model))
    with torch.no_grad():
        z, log_s, log_det = model(numbers["mel"], numbers["audio"])
        audio = model.infer(numbers["mel"], numbers["infer"]["sigma"], numbers["infer"]["noise"])
    torch.testing.assert_close(z, numbers["z"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_s, numbers["log_s"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(audio, numbers["infer"]["audio"], rtol=1e-5, atol=1e-5)
    assert len(log_det) == len(numbers["log_det"])


def convert(source: Path, target: Path, form: str) -> Path:
    known = read(source)
    native = to_native(known, str(source))
    convert_checkpoint.write(str(target), native if form == "native" else FORMS[form](known))
    return target
