"""The torch engine: what it computes in, weights that fit, when it looks at gates and waits for a card."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from deploy_toys import SEEDS, TEXTS, make, make_lively, models_dir, start, toy

import waveglow.config
from common.config_reading import from_dict
from common.program import UserError
from conftest import toy_config
from runs import CPU
from tools.deploy import models
from tools.deploy.artifacts import Source, read_contents
from tools.deploy.engines import torch_engine
from tools.deploy.engines.engine import Build
from tools.deploy.engines.torch_engine import Torch, packed, unpacked
from tools.deploy.models import rebuild
from waveglow.conditioning import interpolation


def test_weights_of_another_version_are_refused():
    model = toy("waveglow")
    weights = dict(model.model.state_dict())
    name = "WN.0.in_layers.0.weight"
    weights[name] = torch.cat([weights[name]] * 2, dim=1)
    with pytest.raises(UserError, match="of another version"):
        rebuild("waveglow", model.config, weights)


@pytest.mark.parametrize(("quant_mode", "worst"), [("force_float32", 0.0), ("force_float16", 0.02), ("int8", 0.02)])
def test_a_waveglow_whose_upsampling_interpolates_is_built_again(quant_mode, worst):
    """As in the shipped voice: its conditions are merged with the upsampling when it is fused."""
    config, model = toy("waveglow").config, waveglow.config.build_model(toy("waveglow").config).eval()
    make_lively(model)
    kernel = interpolation(torch.full((6,), -5.0), torch.full((6,), 2.0), *map(len, model.upsample.weight[0, :1]), 256)
    for parameter, value in zip((model.upsample.weight, model.upsample.bias), kernel, strict=True):
        parameter.data.copy_(value)
    model.fuse()
    assert model.on_lines
    assert model.is_composed
    weights = unpacked(packed(dict(model.state_dict()), quant_mode))
    again = rebuild("waveglow", config, weights).model
    mel, noise = torch.randn(1, 6, 5) - 5, [torch.randn(shape) for shape in model.noise_shapes(1, 5)]
    audio, expected = again.infer(mel, 0.6, noise), model.infer(mel, 0.6, noise)
    assert (audio - expected).abs().mean() <= worst * expected.abs().mean()


def test_pytorch_keeps_freed_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(torch_engine, "keep_freed_memory", kept.append)
    Torch(0, 1, {})
    assert kept == [CPU]


@pytest.mark.parametrize(
    ("quant_mode", "half", "computes"),
    [
        ("force_float32", torch.bfloat16, torch.float32),
        ("force_float16", torch.bfloat16, torch.bfloat16),
        ("force_float16", torch.float16, torch.bfloat16),  # CPUs are slow in float16
        ("int8", torch.bfloat16, torch.bfloat16),
        ("int8", torch.float16, torch.float32),
    ],
)
def test_pytorch_computes_in_what_the_mode_asks_for_and_the_cpu_is_fast_in(quant_mode, half, computes):
    assert torch_engine.precision(quant_mode, replace(CPU, half=half)) == computes


@pytest.mark.parametrize("steps", [3, 16, 1000])
def test_gates_may_be_looked_at_every_few_steps(tmp_path, monkeypatch, steps):
    """As on a card, where a clip then goes on for a little behind its end."""
    contents = make(tmp_path, "torch", decoder="decoder_iter")
    contents.tacotron2.tacotron2_config.gate_threshold = threshold_that_ends_clips(tmp_path, contents)
    pipeline, _ = start(tmp_path, contents)
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    assert lengths.max() < pipeline.limit
    graph, looks = pipeline.graphs["decoder_iter"], []
    original = graph.fetch
    monkeypatch.setattr(graph, "fetch", lambda value: looks.append(value) or original(value))
    graph.steps_at_a_time = steps
    again, same_lengths = pipeline.spectrograms(TEXTS, SEEDS)
    np.testing.assert_array_equal(same_lengths, lengths)
    np.testing.assert_array_equal(again, mel)
    assert len(looks) == -(-lengths.max() // steps) + 1  # and the frames, once


def threshold_that_ends_clips(folder, contents):
    """One that each clip's gate comes above before the limit of steps."""
    pipeline, _ = start(folder, contents)
    graph, gates = pipeline.graphs["decoder_iter"], []
    run = graph.run
    graph.run = lambda inputs: gates.append(run(inputs)) or gates[-1]
    contents.tacotron2.tacotron2_config.gate_threshold = 1.0
    pipeline.spectrograms(TEXTS, SEEDS)
    highest = torch.stack([each["gate_prediction"][:, 0] for each in gates[:-8]]).sigmoid().amax(0)
    return highest.min().item() - 1e-4


def test_pytorch_waits_for_a_card_once_a_stage(tmp_path, monkeypatch):
    pipeline, engine = start(tmp_path, make(tmp_path, "torch", decoder="decoder_iter"))
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    monkeypatch.setattr(engine, "device", replace(engine.device, type="cuda"))
    pipeline.spectrograms(TEXTS, SEEDS)
    assert len(waits) == 3  # encoder, decoder, postnet


def test_a_checkpoint_that_changed_since_its_export_is_not_built(tmp_path):
    checkpoint = tmp_path / "waveglow.safetensors"
    shutil.copy(models_dir() / "waveglow.safetensors", checkpoint)
    exported = read_contents(models_dir() / "onnx", "onnx", "")
    source = Source(str(checkpoint), exported.sources["waveglow"].sha256)
    request = Build("waveglow", exported.signature("waveglow"), tmp_path, source, "force_float32", {})
    Torch.build(request, tmp_path / "built")
    torch_engine.load_model.cache_clear()
    weights = safetensors.torch.load_file(checkpoint)
    with safetensors.safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
    weights["convinv.0.conv.weight"] *= 2
    safetensors.torch.save_file(weights, checkpoint, metadata)
    with pytest.raises(UserError, match="is not what it was when it was exported, export it again: "):
        Torch.build(request, tmp_path / "built")


@pytest.mark.parametrize("name", ["postnet", "waveglow"])
def test_pytorch_multiplies_integers_in_waveglow_alone(tmp_path, monkeypatch, name):
    converted = []
    monkeypatch.setattr(torch_engine, "why_no_int8", lambda device: "")
    monkeypatch.setattr(torch_engine, "use_int8", lambda model, device: converted.append(type(model).__name__))
    contents = make(tmp_path, "torch", "int8")
    Torch(0, 1, {}).load(contents.path(tmp_path, name), name, contents)
    assert converted == ["WaveGlow"] * (name == "waveglow")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    contents = make(tmp_path, "torch")
    contents.waveglow.waveglow_config.WN_config.n_channels *= 2
    with pytest.raises(UserError, match=r"of another version, build them again: bash .*gen_model/run.sh"):
        start(tmp_path, contents)


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
