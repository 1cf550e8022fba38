"""The graph with the decoder's whole loop: each clip stops by itself, or at the limit, and no frame is lost."""

from functools import cache
from itertools import pairwise

import onnx
import pytest
import torch
from deploy_toys import exported, run, toy

from tools.deploy.export_model.example_inputs import loop_inputs
from tools.deploy.graphs import DecoderGraph


@cache
def stopping_loop() -> tuple[onnx.ModelProto, dict, list[int]]:
    """A decoder whose clips end at their own times, one of them never; its inputs; the lengths."""
    model = toy("tacotron2")
    inputs = loop_inputs(model.model.decoder, model.signatures()["decoder"], batch=6, length=30)
    inputs["max_decoder_steps"] = torch.full((6,), 30, dtype=torch.int32)
    highest = run(rebuilt_loop(2.0), **inputs)["gate_outputs"].sigmoid().cummax(1).values

    def lengths(threshold: float) -> list[int]:
        fired = highest > threshold
        return torch.where(fired.any(1), fired.int().argmax(1) + 1, 30).tolist()

    # Between two gates, not on one: rounding does not decide then.
    ordered = highest.flatten().unique()
    between = [(one + other).item() / 2 for one, other in pairwise(ordered) if other - one > 1e-5]
    thresholds = [each for each in between if lengths(each).count(30) == 1]
    best = max(thresholds, key=lambda each: len(set(lengths(each))))
    assert len(set(lengths(best))) > 2
    return rebuilt_loop(best), inputs, lengths(best)


def rebuilt_loop(threshold: float) -> onnx.ModelProto:
    """The loop with another threshold of the gate."""
    loop = onnx.ModelProto()
    loop.CopyFrom(exported()["decoder"].graph)
    (value,) = (each for each in loop.graph.initializer if each.name == "gate_threshold")
    value.CopyFrom(onnx.helper.make_tensor(value.name, value.data_type, [], [threshold]))
    return loop


def test_each_clip_stops_at_its_own_gate_or_at_the_limit():
    graph, inputs, lengths = stopping_loop()
    results = run(graph, **inputs)
    assert results["mel_lengths"].tolist() == lengths
    assert results["mel_outputs"].shape == (6, 6, 30)
    assert results["gate_outputs"].shape == (6, 30)
    assert results["alignments"].shape == (6, 30, 30)
    reference = DecoderGraph(toy("tacotron2").model.decoder)
    reference.decoder.gate_threshold, before = 2.0, reference.decoder.gate_threshold
    mel, gate, alignments, _ = reference(**inputs)
    reference.decoder.gate_threshold = before
    for i, length in enumerate(lengths):
        assert (results["mel_outputs"][i, :, :length] - mel[i, :, :length]).abs().max() < 2e-5
        assert (results["gate_outputs"][i, :length] - gate[i, :length]).abs().max() < 2e-5
        assert (results["alignments"][i, :length] - alignments[i, :length]).abs().max() < 5e-6


def test_decoding_ends_with_the_last_clip():
    graph, inputs, lengths = stopping_loop()
    stopping = [i for i, length in enumerate(lengths) if length < 30]
    results = run(graph, **{name: values[stopping] for name, values in inputs.items()})
    assert results["mel_lengths"].tolist() == [lengths[i] for i in stopping]
    assert results["mel_outputs"].shape[2] == max(lengths[i] for i in stopping)


@pytest.mark.parametrize(("limit", "masks", "frames"), [(5, 30, 5), (30, 7, 7), (1, 1, 1)])
def test_the_limit_is_an_input(limit, masks, frames):
    graph, inputs, _ = stopping_loop()
    limits = torch.full((6,), limit, dtype=torch.int32)
    changed = {"max_decoder_steps": limits, "prenet_masks": inputs["prenet_masks"][:, :masks]}
    results = run(graph, **inputs | changed)
    assert results["mel_outputs"].shape[2] == frames
    assert results["mel_lengths"].max() == frames


def test_each_clip_has_a_limit_of_its_own():
    graph, inputs, lengths = stopping_loop()
    limits = torch.tensor([3, 30, 1, 9, 30, 2], dtype=torch.int32)
    results = run(graph, **inputs | {"max_decoder_steps": limits})
    assert results["mel_lengths"].tolist() == [min(pair) for pair in zip(lengths, limits.tolist())]
