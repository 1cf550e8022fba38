"""The ONNX graphs: names as other tools expect them, numbers as the models', at sizes they were not made with."""

import logging

import numpy as np
import onnx
import pytest
import torch
from deploy_toys import exported, run, toy

from conftest import ROOT
from tacotron2.model import padding_mask
from tools.deploy.export_model import to_onnx, verify
from tools.deploy.export_model.example_inputs import draw_masks
from tools.deploy.export_model.onnx_export import quiet
from tools.deploy.models import PACKAGES
from tools.deploy.signatures import tacotron2_signatures, waveglow_signatures

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
            "prenet_masks": ["float32", "B", 2, 256],
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
            "prenet_masks": ["float32", "B", "S", 2, 256],
            "max_decoder_steps": ["int32", "B"],
        },
        {
            "mel_outputs": ["float32", "B", 80, "M"],
            "gate_outputs": ["float32", "B", "D"],
            "alignments": ["float32", "B", "D", "T"],
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
LETTERS = {"B": "batch", "T": "text", "M": "mel", "S": "steps", "D": "decoded"}


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
        signatures |= of(PACKAGES[kind].Config())
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
def test_graphs_copy_no_tensor_to_change_a_part_of_it(name):
    """What training computes in place would come out as this operator, the slowest of a decoder's step."""
    assert b"ScatterND" not in exported()[name].graph.SerializeToString()


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 50), (2, 3), (4, 21), (9, 8)])
def test_graphs_compute_what_the_models_do(name, batch, length):
    _, graph, module, inputs = exported()[name]
    given = inputs(batch, length)
    with torch.no_grad():
        expected = module(**given)
    results = run(graph, **given).values()
    for result, tensor in zip(results, [expected] if isinstance(expected, torch.Tensor) else expected, strict=True):
        assert result.shape == tensor.shape
        assert (result.double() - tensor.double()).abs().max() < 2e-5


def test_the_exporters_loggers_are_as_loud_as_before(monkeypatch):
    logger = logging.getLogger("torch.onnx")
    monkeypatch.setattr(logger, "level", logging.INFO)
    with quiet():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == logging.INFO


def test_the_encoder_reads_each_text_as_if_alone():
    graph = exported()["encoder"].graph
    lengths = np.array([3, 9, 1, 6], np.int32)
    texts = np.random.default_rng(0).integers(1, 100, (4, 9))
    together = run(graph, sequences=texts, sequence_lengths=lengths)
    for i, length in enumerate(lengths):
        alone = run(graph, sequences=texts[i : i + 1, :length], sequence_lengths=lengths[i : i + 1])
        assert (together["memory"][i, :length] - alone["memory"][0]).abs().max() < 3e-6
        assert (together["memory"][i, length:] == 0).all()


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
        max_decoder_steps=torch.full((3,), 40, dtype=torch.int32),
    )
    mel = {name: decoded[name] for name in ("mel_outputs", "mel_lengths")}
    refined = run(graphs["postnet"], **mel)["mel_outputs_postnet"]
    for i, utterance in enumerate(utterances):
        assert decoded["mel_lengths"][i] == utterance.length
        assert (refined[i, :, : utterance.length] - utterance.mel).abs().max() < 2e-5


def test_sigma_is_each_clips_own_and_scales_all_of_its_noise():
    model = toy("waveglow").model
    noise = [torch.randn(shape) for shape in model.noise_shapes(3, 4)]
    mel, sigma = torch.randn(3, 6, 4), [0.0, 0.6, 1.0]
    graph = exported()["waveglow"].graph
    z = torch.cat(noise, dim=1)[..., None]
    audio = run(graph, mel=mel[..., None], z=z, sigma=torch.tensor(sigma))["audio"]
    for i, each in enumerate(sigma):
        alone = model.infer(mel[i : i + 1], each, [part[i : i + 1] for part in noise])
        assert (audio[i] - alone[0]).abs().max() < 2e-5


def test_graphs_are_compared_at_other_sizes_than_they_are_traced_with():
    """Else a size that the exporter has written into a graph would not show."""
    for batch, length in verify.SIZES:
        assert batch != to_onnx.BATCH and length != to_onnx.LENGTH
    assert len({batch for batch, _ in verify.SIZES}) > 1 and len({length for _, length in verify.SIZES}) > 1
    assert min(batch for batch, _ in verify.SIZES) == 1  # which the exporter treats as fixed
