"""Texts spoken by the engines of Tacotron2's graphs as PyTorch speaks them, and a voice that is served by engines."""

import shutil
from dataclasses import replace

import pytest
import torch
from deploy_toys import TEXTS, make, models_dir

from common.program import UserError
from common.voices import Settings
from conftest import RATE
from runs import CPU
from tacotron2 import synthesizer as module
from tacotron2.synthesizer import Synthesizer
from tools.deploy.artifacts import ONNX, read_contents, write_contents
from tools.deploy.infer_python.synthesizer import EngineSynthesizer

SEEDS = [7, 8, 9]
TACOTRON2 = ("encoder", "decoder", "postnet")


def checkpoints():
    return [str(models_dir() / f"{kind}.safetensors") for kind in ("tacotron2", "waveglow")]


def assert_same(ours, theirs):
    assert (ours.length, ours.stopped) == (theirs.length, theirs.stopped)
    for name in ("mel", "alignment", "gate"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=2e-5, rtol=0)
    assert (ours.diagonality, ours.coverage) == pytest.approx((theirs.diagonality, theirs.coverage), abs=1e-6)


def test_engines_speak_as_pytorch_does(tmp_path):
    """More texts than an engine takes at once."""
    contents = make(tmp_path, batch=(1, 2, 2))
    expected = Synthesizer(checkpoints()[0], CPU).infer(TEXTS, SEEDS)
    synthesizer = EngineSynthesizer(tmp_path, contents)
    for ours, theirs in zip(synthesizer.infer(TEXTS, SEEDS), expected, strict=True):
        assert_same(ours, theirs)
    assert synthesizer.bytes == sum((tmp_path / f"{name}.onnx").stat().st_size for name in TACOTRON2)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_gate_that_fires_ends_a_text(tmp_path, threshold):
    """The flag follows from the gate of the last step: a loop that stops at its limit has not stopped by itself."""
    synthesizer = EngineSynthesizer(tmp_path, make(tmp_path))
    synthesizer.pipeline.sizes.gate_threshold = threshold
    assert [each.stopped for each in synthesizer.infer(TEXTS, SEEDS)] == [threshold == 0.0] * 3


def test_what_goes_wrong_is_tried_again_with_the_same_random_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_flaw", lambda utterance: "" if utterance.length == -1 else "is bad")
    ours, theirs = (
        list(each.speak(["Hello there.", "Go."], seed=3, tries=2))
        for each in (EngineSynthesizer(tmp_path, make(tmp_path)), Synthesizer(checkpoints()[0], CPU))
    )
    for our, their in zip(ours, theirs, strict=True):
        assert (our.text, our.flaw) == (their.text, "is bad")
        assert_same(our.utterance, their.utterance)


def test_engines_that_decode_frame_by_frame_are_refused(tmp_path):
    contents = make(tmp_path, decoder="decoder_iter")
    with pytest.raises(UserError, match="decode frame by frame"):
        EngineSynthesizer(tmp_path, contents)


def test_a_voice_is_served_by_engines_that_are_made_once(tmp_path, monkeypatch):
    """Or again, if something is said of its checkpoints, which its graphs may not know."""
    loading = pytest.importorskip("tools.serve.loading", reason="requirement-serve.txt is not installed")
    shutil.copytree(models_dir(), tmp_path / "toy")
    contents = read_contents(tmp_path / "toy/onnx", ONNX, "")
    contents.tacotron2.data_config.text_cleaners = ["basic_cleaners"]  # as if exported for this voice
    write_contents(tmp_path / "toy/onnx", contents)
    decoding = loading.Decoding("onnxruntime", "force_float32", tmp_path)
    entry = loading.Entry("toy", Settings(text_cleaners=["basic_cleaners"]), RATE, *checkpoints())
    loading.make_engines([entry], decoding)
    decoder = decoding.folder("toy") / "decoder.onnx"
    built = decoder.stat()
    loading.make_engines([entry], decoding)
    assert (decoder.stat().st_mtime_ns, decoder.stat().st_ino) == (built.st_mtime_ns, built.st_ino)
    speaker = loading.load(entry, CPU, "", decoding)
    try:
        assert isinstance(speaker.synthesizer, EngineSynthesizer)
        assert speaker.synthesizer.cleaners == ["basic_cleaners"]
        assert speaker.bytes > 10_000
    finally:
        speaker.close()
    hints, said = {"tacotron2_config": {"gate_threshold": 0.3}}, []
    monkeypatch.setattr(loading, "export_graphs", lambda folder, wanted: said.append(wanted.hints))
    loading.make_engines([replace(entry, hints=hints)], decoding)
    assert said == [hints]
