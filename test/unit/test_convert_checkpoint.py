"""Checkpoints go out in each form and come in again unchanged."""

import subprocess
import sys

import pytest
import torch

from checkpoint_files import (
    DATA,
    TACOTRON2_FILES,
    WAVEGLOW_FILES,
    assert_same_outputs,
    assert_same_weights,
    convert,
    loaded,
)
from common.checkpoints import native
from common.checkpoints.interchange import read
from common.device import pick_device
from conftest import ROOT
from tools.convert_checkpoint import FORMS, glow_importable
from waveglow.vocoder import Vocoder

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


@pytest.mark.parametrize("form", ["native", *FORMS])
@pytest.mark.parametrize("name", WAVEGLOW_FILES + TACOTRON2_FILES)
def test_what_goes_out_comes_in_again_unchanged(tmp_path, name, form):
    before = read(DATA / name)
    after = read(convert(DATA / name, tmp_path / "out", form))
    if form == "native" and name.endswith("no_weightnorm.pt"):
        assert_same_outputs(tmp_path / "out", loaded(DATA / "waveglow.pt"))
    else:
        assert_same_weights(after.weights, before.weights)
    assert after.kind == before.kind
    assert after.iteration == (0 if form == "dle" else before.iteration)
    told = [section for section in before.config if section in after.config]
    assert told or form != "native"
    for section in told:
        assert after.config[section].items() >= before.config[section].items()


def test_native_is_what_this_repository_loads(tmp_path, reference):
    path = convert(DATA / "waveglow_dle.pt", tmp_path / "waveglow_0", "native")
    assert native.load(path)["progress"]["finetuned_from"] == str(DATA / "waveglow_dle.pt")
    vocoder = Vocoder(path, pick_device("cpu"))
    assert vocoder.config.waveglow_config.n_flows == reference["config"]["n_flows"]
    before = Vocoder(DATA / "waveglow_dle.pt", pick_device("cpu"))
    assert torch.equal(*(each.synthesize(reference["mel"][0]) for each in (vocoder, before)))


@pytest.mark.parametrize("form", ["dle", "ascend"])
def test_written_as_the_reference_has_it(tmp_path, form):
    source = DATA / f"waveglow_{form}.pt"
    expected, written = loaded(source), torch.load(convert(source, tmp_path / "out", form), weights_only=True)
    where = "state_dict" if form == "dle" else "model"
    assert_same_weights(written[where], expected[where])
    assert written.get("config") == expected.get("config")


def sizes(module):
    """What a module computes with beside its weights: dilation, padding, stride, numbers of channels and layers."""
    return {name: value for name, value in vars(module).items() if isinstance(value, int | tuple)}


def test_the_module_has_all_that_nvidia_s_has(tmp_path):
    """Each module of the pickle: same class, same attributes. (NVIDIA's own code was seen to train on it.)"""
    path = convert(DATA / "waveglow_nvidia_whole_module.pt", tmp_path / "out", "nvidia")
    with glow_importable():
        ours, theirs = (
            torch.load(file, weights_only=False)["model"] for file in (path, DATA / "waveglow_nvidia_whole_module.pt")
        )
    described = [
        {name: (type(module).__name__, sorted(vars(module)), sizes(module)) for name, module in model.named_modules()}
        for model in (ours, theirs)
    ]
    assert described[0] == described[1]
    dilations = [layer.dilation for layer in ours.WN[0].in_layers]
    assert dilations == [(1,), (2,), (4,)] and ours.WN[0].in_layers[2].padding == (4,)
    start = ours.WN[0].start
    torch.testing.assert_close(start.weight, start.weight_g * start.weight_v / start.weight_v.norm(dim=1)[:, None])
    assert "glow" not in sys.modules


def test_a_written_optimizer_can_go_on(tmp_path):
    written = torch.load(convert(DATA / "tacotron2_dle.pt", tmp_path / "out", "nvidia"), weights_only=True)
    parameters = [v for n, v in written["state_dict"].items() if "running_" not in n and "num_batches" not in n]
    torch.optim.Adam(parameters).load_state_dict(written["optimizer"])


def test_the_program_runs_from_any_folder(tmp_path):
    command = [sys.executable, ROOT / "tools/convert_checkpoint.py", DATA / "waveglow_ascend.pt", "a folder/out"]
    done = subprocess.run([*command, "--to=safetensors"], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote a folder/out: WaveGlow at iteration 21000, as safetensors\n"
    assert_same_outputs(tmp_path / "a folder/out", loaded(DATA / "waveglow.pt"))
