"""What a precision costs is measured: what is spoken for it, by real engines and by stand-ins, and compared how."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from deploy_toys import make, models_dir, raw

from tacotron2.text.alphabet import NVIDIAS
from tools.deploy.artifacts import read_contents
from tools.deploy.engines.onnxruntime_engine import OnnxRuntime
from tools.deploy.gen_model import precision_cost
from tools.deploy.gen_model.precision_cost import measure_cost


def test_an_engine_that_was_compared_is_given_back(monkeypatch):
    did = []
    engine = SimpleNamespace(close=lambda: did.append("close"))
    made = lambda *given: did.append(given) or engine  # noqa: E731
    monkeypatch.setattr(precision_cost, "find_engine", lambda name: made if name == "torch" else None)
    monkeypatch.setattr(precision_cost, "Pipeline", lambda *given: given)
    monkeypatch.setattr(precision_cost, "say", lambda pipeline, given: did.append((pipeline, given)) or "spoken")
    contents = SimpleNamespace(engine="torch", options={"a": 1})
    assert precision_cost._speak("folder", contents, "mel") == "spoken"
    assert did == [(0, 1, {"a": 1}), (("folder", contents, engine), "mel"), "close"]


@pytest.mark.parametrize(("limit", "meant"), [(7, 7), (1000, precision_cost.FRAMES)])
def test_no_more_is_compared_than_can_be_spoken_or_than_takes_seconds(monkeypatch, limit, meant):
    monkeypatch.setattr(precision_cost, "reader", lambda contents: lambda text: [1] * len(text))
    mel = np.zeros((1, 80, 7), np.float32)
    contents = SimpleNamespace(
        ranges={"text": [1, 2, 9]}, tacotron2=SimpleNamespace(data_config=SimpleNamespace(alphabet=NVIDIAS))
    )
    spoken = []
    pipeline = SimpleNamespace(
        contents=contents, limit=limit,
        spectrograms=lambda texts, seeds: spoken.append(len(texts[0])) or (mel, np.array([5])),
        audio=lambda mel, lengths, sigma, seeds: ["audio"],
    )  # fmt: skip
    compared, audio = precision_cost.say(pipeline)
    assert (compared.shape, audio) == ((80, 5), "audio")  # not what lies behind the end
    assert (pipeline.limit, spoken) == (meant, [9])


def test_the_exact_numbers_are_made_without_the_other_engines_options(tmp_path, monkeypatch):
    given, original = [], OnnxRuntime.__init__
    monkeypatch.setattr(OnnxRuntime, "__init__", lambda self, *args: given.append(args[-1]) or original(self, *args))
    exported_contents = read_contents(models_dir() / "onnx", "onnx", "")
    measure_cost(tmp_path, make(tmp_path, "magicmind"), models_dir() / "onnx", exported_contents)
    assert given == [{}]


def test_what_one_model_costs_is_not_the_other_ones(tmp_path):
    """WaveGlow gets the exact spectrogram."""
    contents = make(tmp_path)
    path = contents.path(tmp_path, "postnet")
    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if each.name.endswith("4.0.conv.bias"))
    weight.raw_data = (onnx.numpy_helper.to_array(weight) + 1).tobytes()
    onnx.save(model, path)
    contents.add(tmp_path, "postnet", path.name)
    exported_contents = read_contents(models_dir() / "onnx", "onnx", "")
    cost = measure_cost(tmp_path, contents, models_dir() / "onnx", exported_contents)
    assert cost["tacotron2"] > 0.5
    assert cost["waveglow"] < 1e-4


def test_a_cost_is_of_the_whole_wave(tmp_path, monkeypatch):
    """Twice as loud below zero, where a logarithm of amplitudes is larger by that of 2."""
    mel, wave = np.zeros((6, 30), np.float32), -np.abs(np.random.default_rng(0).standard_normal(8000)).astype("f4") / 20
    spoken = iter([(mel, wave), (mel, 2 * wave)])
    monkeypatch.setattr(precision_cost, "_speak", lambda *_: next(spoken))
    cost = measure_cost(tmp_path, raw(), tmp_path, raw())
    assert cost == pytest.approx({"tacotron2": 0, "waveglow": np.log(2)}, abs=0.01)


def test_what_is_clipped_in_the_wav_is_no_cost(tmp_path, monkeypatch):
    mel, wave = np.zeros((6, 30), np.float32), np.sign(np.random.default_rng(0).standard_normal(8000)).astype("f4")
    spoken = iter([(mel, 3 * wave), (mel, 2 * wave)])
    monkeypatch.setattr(precision_cost, "_speak", lambda *_: next(spoken))
    assert measure_cost(tmp_path, raw(), tmp_path, raw()) == {"tacotron2": 0, "waveglow": 0}


def test_both_models_cost_something_and_little(tmp_path):
    exported_contents = read_contents(models_dir() / "onnx", "onnx", "")
    cost = measure_cost(tmp_path, make(tmp_path, "torch", "force_float16"), models_dir() / "onnx", exported_contents)
    assert cost.keys() == {"tacotron2", "waveglow"}
    assert all(0 < distance < 0.02 for distance in cost.values())
