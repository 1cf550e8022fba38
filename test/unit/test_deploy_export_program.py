"""The program that exports: checkpoints of any form, nothing wrong is written, one writer at a time."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from deploy_toys import exported, run_script, toy

from common.config_reading import from_dict
from common.folder_lock import LOCK
from common.program import UserError
from common.voices import sha256
from conftest import ROOT, toy_config, toy_tacotron2_config
from tools.deploy import models
from tools.deploy.artifacts import Source, read_contents
from tools.deploy.checkpoints import RANDOM
from tools.deploy.export_model import export, to_onnx
from tools.deploy.export_model.example_inputs import loop_inputs
from tools.deploy.models import PACKAGES
from tools.deploy.signatures import GRAPHS

REFERENCE = ROOT / "test/data/reference"


@pytest.mark.parametrize(("more", "distance"), [(0.01, "0.01"), (-0.01, "0.01"), (np.nan, "nan")])
def test_a_graph_that_differs_from_its_model_is_refused(more, distance):
    name, graph, module, inputs = exported()["postnet"]
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(graph)
    weight = next(each for each in spoiled.graph.initializer if each.name.endswith("4.0.conv.bias"))
    weight.raw_data = (onnx.numpy_helper.to_array(weight) + np.float32(more)).tobytes()
    assert "off its model by" in to_onnx.compare(to_onnx.Export(name, graph, module, inputs))
    with pytest.raises(UserError, match=rf"postnet.onnx is off its model by {distance}.*not written"):
        to_onnx.compare(to_onnx.Export(name, spoiled, module, inputs))


def test_a_graph_of_another_shape_is_refused():
    name, graph, module, inputs = exported()["postnet"]
    longer = torch.nn.Module()
    longer.forward = lambda **given: torch.cat(2 * [module(**given)], dim=2)
    with pytest.raises(UserError, match=r"postnet.onnx is off its model by inf.*not written"):
        to_onnx.compare(to_onnx.Export(name, graph, longer, inputs))


@pytest.mark.slow
def test_the_script_takes_any_form_of_checkpoint(tmp_path):
    here = tmp_path / "my folder"
    here.mkdir()
    safetensors.torch.save_file(toy("tacotron2").model.state_dict(), here / "bare.safetensors")  # no configuration
    (here / "w.pt").write_bytes((REFERENCE / "waveglow_nvidia_whole_module.pt").read_bytes())
    options = ["--tacotron2=bare.safetensors", "--waveglow", "w.pt", "--models_dir=my models", "--opset=13"]
    done = run_script("export_model/run.sh", *options, cwd=here)
    assert done.returncode == 0, done.stderr
    contents = read_contents(here / "my models/onnx", "onnx", "")
    paths = {"tacotron2": here / "bare.safetensors", "waveglow": here / "w.pt"}
    assert contents.sources == {kind: Source(str(path), sha256(path)) for kind, path in paths.items()}
    assert list(contents.files) == list(GRAPHS)
    assert contents.opset == 13
    for name in GRAPHS:
        onnx.checker.check_model(str(contents.path(here / "my models/onnx", name)))


def test_what_was_asked_for_is_written_while_nobody_else_writes(run_here, tmp_path, monkeypatch):
    written = []

    def write(found, folder, sigma, opset, options):
        take = f"import fcntl; fcntl.lockf(open('models/{LOCK}', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        another = subprocess.run([sys.executable, "-c", take], capture_output=True, text=True, timeout=100)
        written.append((opset, options, "BlockingIOError" in another.stderr))

    monkeypatch.setattr(to_onnx, "write", write)
    options = [f"--{kind}={toy(kind).source.path}" for kind in PACKAGES]
    done = run_here(export.main, *options, "--models_dir=models", "--opset=13")
    assert done.returncode == 0, done.stderr
    assert written == [(13, options, True)]


def test_checkpoints_that_do_not_fit_together(tmp_path):
    done = run_script(
        "export_model/run.sh", f"--tacotron2={REFERENCE / 'tacotron2_dle.pt'}", "--waveglow=heart/waveglow",
        f"--models_dir={tmp_path}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the checkpoints do not fit together: n_mel_channels is" in done.stderr


@torch.no_grad()
def test_random_weights_are_the_same_each_time_and_find_no_end(monkeypatch):
    for kind, values in (("tacotron2", toy_tacotron2_config()), ("waveglow", toy_config())):
        config = from_dict(PACKAGES[kind].Config, values)
        monkeypatch.setattr(PACKAGES[kind], "Config", lambda config=config: config)
        first, again = (torch.manual_seed(seed) and models.load(kind, RANDOM).model.state_dict() for seed in (1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        ends = [tensor for name, tensor in first.items() if name.endswith("end.weight")]
        assert bool(ends) == (kind == "waveglow") and all(tensor.any() for tensor in ends)  # else all before is idle
    model = models.load("tacotron2", RANDOM)
    assert model.config.tacotron2_config.max_decoder_steps == 600  # as many as NVIDIA's make of 128 characters
    assert not any(module.training for module in model.model.modules())  # else its graphs would not be its own
    inputs = loop_inputs(model.model.decoder, model.signatures()["decoder"], batch=2, length=9)
    *_, lengths = model.modules()["decoder"](**inputs | {"max_decoder_steps": torch.tensor([9, 7])})
    assert lengths.tolist() == [9, 7]
