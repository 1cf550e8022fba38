"""The ONNX graphs: names as other tools expect them, numbers as the models', at sizes they were not made with."""

import atexit
import json
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from common.config import from_dict
from common.program import UserError
from conftest import ROOT, script_environment, toy_config, toy_tacotron2_config
from tacotron2.model import padding_mask
from tools.deploy import export, models
from tools.deploy.examples import LoopReference, draw_masks, example_inputs, loop_inputs
from tools.deploy.folder import read_contents, sole_writer
from tools.deploy.graphs import tacotron2_signatures, waveglow_signatures
from tools.deploy.loop import decoder_loop
from tools.deploy.models import PACKAGES, Model

REFERENCE = ROOT / "test/data/reference"
TYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool"}
TABLE = {
    "encoder": (
        {"sequences": ["int64", "B", "T"], "sequence_lengths": ["int32", "B"]},
        {"memory": ["float32", "B", "T", 512], "processed_memory": ["float32", "B", "T", 128], "lens": ["int32", "B"]},
    ),
    "decoder_iter": (
        {
            "decoder_input": ["float32", "B", 80],
            "attention_hidden": ["float32", "B", 1024],
            "attention_cell": ["float32", "B", 1024],
            "decoder_hidden": ["float32", "B", 1024],
            "decoder_cell": ["float32", "B", 1024],
            "attention_weights": ["float32", "B", "T"],
            "attention_weights_cum": ["float32", "B", "T"],
            "attention_context": ["float32", "B", 512],
            "memory": ["float32", "B", "T", 512],
            "processed_memory": ["float32", "B", "T", 128],
            "mask": ["bool", "B", "T"],
            "prenet_masks": ["float32", 2, "B", 256],
        },
        {
            "decoder_output": ["float32", "B", 80],
            "gate_prediction": ["float32", "B", 1],
            "out_attention_hidden": ["float32", "B", 1024],
            "out_attention_cell": ["float32", "B", 1024],
            "out_decoder_hidden": ["float32", "B", 1024],
            "out_decoder_cell": ["float32", "B", 1024],
            "out_attention_weights": ["float32", "B", "T"],
            "out_attention_weights_cum": ["float32", "B", "T"],
            "out_attention_context": ["float32", "B", 512],
        },
    ),
    "decoder": (
        {
            "memory": ["float32", "B", "T", 512],
            "processed_memory": ["float32", "B", "T", 128],
            "mask": ["bool", "B", "T"],
            "prenet_masks": ["float32", "S", 2, "B", 256],
            "max_decoder_steps": ["int64"],
        },
        {
            "mel_outputs": ["float32", "B", 80, "M"],
            "gate_outputs": ["float32", "B", "M"],
            "alignments": ["float32", "B", "M", "T"],
            "mel_lengths": ["int32", "B"],
        },
    ),
    "postnet": (
        {"mel_outputs": ["float32", "B", 80, "M"], "mel_lengths": ["int32", "B"]},
        {"mel_outputs_postnet": ["float32", "B", 80, "M"]},
    ),
    "waveglow": (
        {"mel": ["float32", "B", 80, "M", 1], "z": ["float32", "B", 8, "32*M", 1], "sigma": ["float32", "B"]},
        {"audio": ["float32", "B", "256*M"]},
    ),
}
LETTERS = {"B": "batch", "T": "text", "M": "mel", "S": "steps"}


@cache
def models_dir() -> Path:
    """Toy checkpoints and their graphs, made once for all tests."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    found = {kind: models.load(kind, str(make_checkpoint(kind, folder))) for kind in PACKAGES}
    export.write(found, folder / "onnx")
    return folder


def make_checkpoint(kind: str, folder: Path) -> Path:
    values = toy_config() if kind == "waveglow" else toy_tacotron2_config()
    config = from_dict(PACKAGES[kind].Config, values)
    torch.manual_seed(1)
    model = PACKAGES[kind].build_model(config)
    make_lively(model)
    path = folder / f"{kind}.safetensors"
    safetensors.torch.save_file(model.state_dict(), path, {"config": json.dumps(asdict(config))})
    return path


def make_lively(model: torch.nn.Module) -> None:
    """Weights that make everything matter: a coupling of WaveGlow begins as the identity, for one."""
    for wn in getattr(model, "WN", []):
        torch.nn.init.normal_(wn.end.weight, std=0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    for name, parameter in model.named_parameters():
        if name.startswith("decoder.") and parameter.ndim > 1:
            parameter.data *= 2


@cache
def toy(kind: str) -> Model:
    return models.load(kind, str(models_dir() / f"{kind}.safetensors"))


@cache
def exported() -> dict[str, export.Export]:
    """The graphs, and the modules that they come from."""
    found = {}
    for kind in PACKAGES:
        model, modules, signatures = toy(kind), toy(kind).modules(), toy(kind).signatures()
        if kind == "tacotron2":
            modules["decoder"] = LoopReference(model.model)
        for name, module in modules.items():
            graph = onnx.load(models_dir() / "onnx" / f"{name}.onnx")
            inputs = partial(loop_inputs, model.model) if name == "decoder" else example_inputs
            found[name] = export.Export(name, graph, module, partial(inputs, signatures[name]))
    return found


def run(graph: onnx.ModelProto, **inputs) -> dict[str, torch.Tensor]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: np.asarray(value) for name, value in inputs.items()})
    return {port.name: torch.from_numpy(result) for port, result in zip(session.get_outputs(), results)}


def signature_of(graph: onnx.ModelProto) -> list[dict]:
    return [
        {
            port.name: [
                TYPES[port.type.tensor_type.elem_type],
                *(axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim),
            ]
            for port in ports
        }
        for ports in (graph.graph.input, graph.graph.output)
    ]


def written_out(ports) -> dict:
    return {name: [port.dtype, *port.axes] for name, port in ports.items()}


def spelled_out(ports: dict) -> dict:
    word = lambda axis: "*".join(LETTERS.get(part, part) for part in axis.split("*"))  # noqa: E731
    return {name: [word(axis) if isinstance(axis, str) else axis for axis in axes] for name, axes in ports.items()}


def test_signatures_at_full_size_are_those_that_other_tools_expect():
    signatures = {}
    for kind, of in (("tacotron2", tacotron2_signatures), ("waveglow", waveglow_signatures)):
        signatures |= of(PACKAGES[kind].build_model(PACKAGES[kind].Config()))
    assert signatures.keys() == TABLE.keys()
    for name, (inputs, outputs) in TABLE.items():
        assert written_out(signatures[name].inputs) == spelled_out(inputs)
        assert written_out(signatures[name].outputs) == spelled_out(outputs)
        assert list(signatures[name].inputs) == list(inputs)


@pytest.mark.parametrize("name", TABLE)
def test_graphs_have_their_signatures(name):
    signature = toy("waveglow" if name == "waveglow" else "tacotron2").signatures()[name]
    graph = exported()[name].graph
    onnx.checker.check_model(graph, full_check=True)
    inputs, outputs = signature_of(graph)
    assert inputs == written_out(signature.inputs)
    assert outputs == written_out(signature.outputs)


@pytest.mark.parametrize("name", TABLE)
def test_graphs_hold_no_random_numbers_and_nothing_of_this_machine(name):
    graph = exported()[name].graph
    assert not {node.op_type for node in graph.graph.node} & {
        "RandomNormal",
        "RandomUniformLike",
        "Dropout",
        "Bernoulli",
    }
    assert str(ROOT).encode() not in graph.SerializeToString()


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 50), (2, 3), (4, 21), (9, 8)])
def test_graphs_compute_what_the_models_do(name, batch, length):
    _, graph, module, inputs = exported()[name]
    given = inputs(batch, length)
    with torch.no_grad():
        expected = module(**given)
    results = run(graph, **given).values()
    for result, tensor in zip(results, [expected] if isinstance(expected, torch.Tensor) else expected):
        assert result.shape == tensor.shape
        assert (result.double() - tensor.double()).abs().max() < 1e-3


def test_the_encoder_reads_each_text_as_if_alone():
    graph = exported()["encoder"].graph
    lengths = np.array([3, 9, 1, 6], np.int32)
    texts = np.random.default_rng(0).integers(1, 100, (4, 9))
    together = run(graph, sequences=texts, sequence_lengths=lengths)
    for i, length in enumerate(lengths):
        alone = run(graph, sequences=texts[i : i + 1, :length], sequence_lengths=lengths[i : i + 1])
        assert (together["memory"][i, :length] - alone["memory"][0]).abs().max() < 1e-5
        assert (together["memory"][i, length:] == 0).all()


@cache
def stopping_loop() -> tuple[onnx.ModelProto, dict, list[int]]:
    """A decoder whose clips end at their own times, one of them never; its inputs; the lengths."""
    model = toy("tacotron2")
    inputs = loop_inputs(model.model, model.signatures()["decoder"], batch=6, length=30)
    highest = run(rebuilt_loop(2.0), **inputs)["gate_outputs"].sigmoid().cummax(1).values

    def lengths(threshold: float) -> list[int]:
        fired = highest > threshold
        return torch.where(fired.any(1), fired.int().argmax(1) + 1, 30).tolist()

    thresholds = [each for each in highest.flatten().tolist() if lengths(each).count(30) == 1]
    best = max(thresholds, key=lambda each: len(set(lengths(each))))
    assert len(set(lengths(best))) > 2
    return rebuilt_loop(best), inputs, lengths(best)


def rebuilt_loop(threshold: float) -> onnx.ModelProto:
    return decoder_loop(exported()["decoder_iter"].graph, threshold, toy("tacotron2").signatures()["decoder"])


def test_each_clip_stops_at_its_own_gate_or_at_the_limit():
    graph, inputs, lengths = stopping_loop()
    results = run(graph, **inputs)
    assert results["mel_lengths"].tolist() == lengths
    assert results["mel_outputs"].shape == (6, 6, 30)
    assert results["gate_outputs"].shape == (6, 30)
    assert results["alignments"].shape == (6, 30, 30)
    reference = LoopReference(toy("tacotron2").model)
    reference.decoder.gate_threshold, before = 2.0, reference.decoder.gate_threshold
    mel, gate, alignments, _ = reference(**inputs)
    reference.decoder.gate_threshold = before
    for i, length in enumerate(lengths):
        assert (results["mel_outputs"][i, :, :length] - mel[i, :, :length]).abs().max() < 1e-3
        assert (results["gate_outputs"][i, :length] - gate[i, :length]).abs().max() < 1e-3
        assert (results["alignments"][i, :length] - alignments[i, :length]).abs().max() < 1e-3


def test_decoding_ends_with_the_last_clip():
    graph, inputs, lengths = stopping_loop()
    stopping = [i for i, length in enumerate(lengths) if length < 30]
    picked = dict(inputs)
    for name in ("memory", "processed_memory", "mask"):
        picked[name] = inputs[name][stopping]
    picked["prenet_masks"] = inputs["prenet_masks"][:, :, stopping]
    results = run(graph, **picked)
    assert results["mel_lengths"].tolist() == [lengths[i] for i in stopping]
    assert results["mel_outputs"].shape[2] == max(lengths[i] for i in stopping)


@pytest.mark.parametrize(("limit", "masks", "frames"), [(5, 30, 5), (30, 7, 7), (1, 1, 1)])
def test_the_limit_is_an_input(limit, masks, frames):
    graph, inputs, _ = stopping_loop()
    changed = {"max_decoder_steps": torch.tensor(limit), "prenet_masks": inputs["prenet_masks"][:masks]}
    results = run(graph, **inputs | changed)
    assert results["mel_outputs"].shape[2] == frames
    assert results["mel_lengths"].max() == frames


def test_a_clip_has_the_spectrogram_that_the_model_infers():
    model = toy("tacotron2").model
    texts, lengths, seeds = torch.randint(1, 100, (3, 12)), torch.tensor([5, 12, 9]), [11, 12, 13]
    utterances = model.infer(texts, lengths, seeds)
    graphs = {name: each.graph for name, each in exported().items()}
    encoded = run(graphs["encoder"], sequences=texts, sequence_lengths=lengths.int())
    decoded = run(
        graphs["decoder"],
        memory=encoded["memory"],
        processed_memory=encoded["processed_memory"],
        mask=padding_mask(lengths, 12),
        prenet_masks=draw_masks(model.decoder.prenet, seeds, 40),
        max_decoder_steps=torch.tensor(40),
    )
    mel = {name: decoded[name] for name in ("mel_outputs", "mel_lengths")}
    refined = run(graphs["postnet"], **mel)["mel_outputs_postnet"]
    for i, utterance in enumerate(utterances):
        assert decoded["mel_lengths"][i] == utterance.length
        assert (refined[i, :, : utterance.length] - utterance.mel).abs().max() < 1e-3


def test_sigma_is_each_clips_own_and_scales_all_of_its_noise():
    model = toy("waveglow").model
    noise = [torch.randn(shape) for shape in model.noise_shapes(3, 4)]
    mel, sigma = torch.randn(3, 6, 4), [0.0, 0.6, 1.0]
    graph = exported()["waveglow"].graph
    z = torch.cat(noise, dim=1)[..., None]
    audio = run(graph, mel=mel[..., None], z=z, sigma=torch.tensor(sigma))["audio"]
    for i, each in enumerate(sigma):
        alone = model.infer(mel[i : i + 1], each, [part[i : i + 1] for part in noise])
        assert (audio[i] - alone[0]).abs().max() < 1e-3


def test_what_differs_from_its_model_is_not_written():
    name, graph, module, inputs = exported()["postnet"]
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(graph)
    weight = next(each for each in spoiled.graph.initializer if each.name.endswith("4.0.conv.bias"))
    weight.raw_data = (onnx.numpy_helper.to_array(weight) + 0.01).tobytes()
    assert "off its model by" in export.compare(export.Export(name, graph, module, inputs))
    with pytest.raises(UserError, match=r"postnet.onnx is off its model by 0.01.*not written"):
        export.compare(export.Export(name, spoiled, module, inputs))


def run_script(*options, cwd):
    return subprocess.run(
        ["bash", ROOT / "tools/deploy/export_model/run.sh", *options],
        cwd=cwd, env=script_environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_script_takes_any_form_of_checkpoint(tmp_path):
    here = tmp_path / "my folder"
    here.mkdir()
    safetensors.torch.save_file(toy("tacotron2").model.state_dict(), here / "bare.safetensors")  # no configuration
    (here / "w.pt").write_bytes((REFERENCE / "waveglow_nvidia_whole_module.pt").read_bytes())
    options = ["--tacotron2=bare.safetensors", "--waveglow", "w.pt", "--models_dir=my models"]
    done = run_script(*options, cwd=here)
    assert done.returncode == 0, done.stderr
    contents = read_contents(here / "my models/onnx", "onnx", "")
    assert contents.sources == {"tacotron2": str(here / "bare.safetensors"), "waveglow": str(here / "w.pt")}
    assert list(contents.files) == list(TABLE)
    for name in TABLE:
        onnx.checker.check_model(str(contents.path(here / "my models/onnx", name)))


def test_checkpoints_that_do_not_fit_together(tmp_path):
    done = run_script(f"--tacotron2={REFERENCE / 'tacotron2_dle.pt'}", f"--models_dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert "the checkpoints do not fit together: n_mel_channels is" in done.stderr


def test_one_writer_at_a_time(tmp_path):
    with (
        sole_writer(tmp_path),
        pytest.raises(UserError, match=r"another run is writing to .*: wait, or choose another folder"),
        sole_writer(tmp_path),
    ):
        pass
    with sole_writer(tmp_path):
        pass


def test_random_weights_are_the_same_each_time(monkeypatch):
    for kind, values in (("tacotron2", toy_tacotron2_config()), ("waveglow", toy_config())):
        config = from_dict(PACKAGES[kind].Config, values)
        monkeypatch.setattr(PACKAGES[kind], "Config", lambda config=config: config)
        first, again = (models.load(kind, models.RANDOM).model.state_dict() for _ in range(2))
        assert all(torch.equal(first[name], again[name]) for name in first)
