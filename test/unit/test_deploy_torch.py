"""The torch engine: what it computes in, weights that fit, when it looks at gates and waits for a card."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from deploy_toys import SEEDS, TEXTS, make, make_lively, models_dir, start, toy

import waveglow.config
from common.program import UserError
from runs import CPU
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
def test_what_pytorch_computes_in(quant_mode, half, computes):
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
