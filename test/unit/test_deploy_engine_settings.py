"""What engines are told, and what they keep exact: threads, shares of a CPU, layers in few bits."""

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from deploy_toys import make, models_dir, raw, start

from common.config_reading import from_dict
from common.program import UserError
from conftest import toy_config
from runs import CPU
from tools.deploy import models
from tools.deploy.engines import engine as engine_module
from tools.deploy.engines import onnxruntime_engine, torch_engine
from tools.deploy.engines.engine import Build, share_of_cores
from tools.deploy.engines.onnxruntime_engine import OnnxRuntime
from tools.deploy.engines.torch_engine import Torch


def test_a_share_of_the_cores_is_each_devices_own(monkeypatch):
    monkeypatch.setattr(engine_module.os, "sched_getaffinity", lambda process: set(range(6)))
    assert [share_of_cores(0, 1), share_of_cores(5, 2), share_of_cores(0, 4), share_of_cores(0, 9)] == [6, 3, 1, 1]
    with pytest.raises(UserError, match="device 6 does not exist: this process has devices 0 to 5"):
        share_of_cores(6, 2)


@pytest.mark.parametrize("spinning", [False, True])
def test_onnxruntime_takes_the_threads_that_it_was_given(monkeypatch, tmp_path, spinning):
    models_dir()  # whose making is compared in sessions of its own
    given, session = [], onnxruntime.InferenceSession
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *args: given.append(args[1]) or session(*args))
    contents = raw()
    contents.options = {"spinning": spinning}
    _, engine = start(models_dir() / "onnx", contents)
    assert {options.intra_op_num_threads for options in given} == {engine.threads}
    spins = {options.get_session_config_entry("session.intra_op.allow_spinning") for options in given}
    assert spins == {str(int(spinning))}
    # Else a long text takes many times as long.
    assert {options.get_session_config_entry("session.set_denormal_as_zero") for options in given} == {"1"}


def test_engines_of_onnxruntime_are_for_every_machine(tmp_path):
    """What is good for one processor alone, as a convolution and what follows it in one, comes when they are loaded."""
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,16,8] x) => (float y) { a = Conv (x, w) y = Relu (a) }'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((16, 16, 3), np.float32), "w"))
    onnx.save(model, tmp_path / "a.onnx")
    source = raw().sources["waveglow"]
    request = Build("waveglow", raw().signature("waveglow"), tmp_path / "a.onnx", source, "force_float32", {})
    OnnxRuntime.build(request, tmp_path / "built.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "built.onnx").graph.node] == ["Conv", "Relu"]


@pytest.mark.parametrize("name", ["postnet", "waveglow"])
def test_pytorch_multiplies_integers_in_waveglow_alone(tmp_path, monkeypatch, name):
    converted = []
    monkeypatch.setattr(torch_engine, "why_no_int8", lambda device: "")
    monkeypatch.setattr(torch_engine, "use_int8", lambda model, device: converted.append(type(model).__name__))
    contents = make(tmp_path, "torch", "int8")
    Torch(0, 1, {}).load(contents.path(tmp_path, name), name, contents)
    assert converted == ["WaveGlow"] * (name == "waveglow")


def test_engines_are_built_with_all_that_is_known_of_their_graphs(tmp_path, monkeypatch):
    requests, build = [], OnnxRuntime.build
    monkeypatch.setattr(OnnxRuntime, "build", lambda request, path: requests.append(request) or build(request, path))
    make(tmp_path)
    assert {request.hop_length for request in requests} == {256}
    assert all("export_model/run.sh" in request.how for request in requests)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    contents = make(tmp_path, "torch")
    contents.waveglow.waveglow_config.WN_config.n_channels *= 2
    with pytest.raises(UserError, match=r"of another version, build them again: bash .*gen_model/run.sh"):
        start(tmp_path, contents)


def test_no_clip_gets_more_frames_than_engines_take():
    contents = raw()
    contents.tacotron2.tacotron2_config.n_frames_per_step = 2
    contents.ranges["mel"] = [4, 8, 31]
    assert start(models_dir() / "onnx", contents)[0].limit == 15  # steps


@pytest.mark.parametrize(("module", "engine"), [(onnxruntime_engine, OnnxRuntime), (torch_engine, Torch)])
def test_an_engine_takes_the_share_of_its_own_device(monkeypatch, module, engine):
    asked = []
    monkeypatch.setattr(module, "share_of_cores", lambda device, shares: asked.append((device, shares)) or 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(torch_engine, "pick_device", lambda *_: CPU)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert engine(5, 8, {}).device_name.endswith("3 threads")
    assert asked == [(5, 8)]


@pytest.mark.parametrize("mode", ["force_float16", "int8"])
def test_an_upsampling_is_rounded_to_11_bits_at_most(mode):
    """By whose weights it is seen to interpolate."""
    exact = torch.linspace(0.1, 1, 90 * 90).reshape(90, 90)
    weights = torch_engine.unpacked(torch_engine.packed({"upsample.weight": exact, "a.weight": exact}, mode))
    errors = {name: ((weight - exact) / exact).abs().max().item() for name, weight in weights.items()}
    assert errors["upsample.weight"] <= 2**-11 < 2**-9 < errors["a.weight"]


def test_biases_stay_exact():
    """However large a layer is."""
    weights = {"bias": torch.full((9000,), 1.001), "weight": torch.full((90, 90), 1.001)}
    for mode in ("force_float16", "int8"):
        small = torch_engine.packed(dict(weights), mode)
        assert torch.equal(small["bias"], weights["bias"])
        assert small["weight"].dtype != torch.float32


def test_in_half_precision_pytorch_keeps_the_state_exact(tmp_path):
    """Sums over hundreds of steps are kept in float32, as in the training."""
    pipeline, _ = start(tmp_path, make(tmp_path, "torch", "force_float16", decoder="decoder_iter"))
    graph, value = pipeline.graphs["decoder_iter"], np.ones((1, 3), np.float32)
    dtypes = {name: graph.upload(name, value).dtype for name in ("decoder_cell", "decoder_hidden")}
    assert dtypes == {"decoder_cell": torch.float32, "decoder_hidden": torch.bfloat16}


def test_in_half_precision_the_postnet_corrects_an_exact_spectrogram():
    """What it adds is rounded, and not what it adds to."""
    postnet = models.load("tacotron2", str(models_dir() / "tacotron2.safetensors")).modules()["postnet"].bfloat16()
    postnet.postnet.register_forward_hook(lambda module, inputs, result: torch.zeros_like(result))
    mel, lengths = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(1)), torch.tensor([9, 5])
    assert torch.equal(postnet(mel, lengths), mel)


def test_what_a_checkpoint_does_not_say_is_as_in_its_graph(tmp_path):
    """With another hop length other weights come of merging the upsampling into what is behind it."""
    values = toy_config()
    values["data_config"]["hop_length"], values["waveglow_config"]["upsample_kernel"] = 64, 128
    model = models.PACKAGES["waveglow"].build_model(from_dict(models.PACKAGES["waveglow"].Config, values))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "bare")
    exported = models.load("waveglow", str(tmp_path / "bare"), {"data_config": {"hop_length": 64}})
    signature, weights = exported.signatures()["waveglow"], exported.model.state_dict()
    Torch.build(
        Build("waveglow", signature, tmp_path, exported.source, "force_float32", {}, hop_length=64), tmp_path / "b"
    )
    built = safetensors.torch.load_file(tmp_path / "b")
    assert "WN.0.cond_layer.weight" in built
    assert all(torch.equal(tensor, weights[name]) for name, tensor in built.items())
