"""What is spoken to measure what a precision costs, by stand-ins for engines."""

from types import SimpleNamespace

import numpy as np
import pytest

from tacotron2.text.alphabet import NVIDIAS
from tools.deploy.gen_model import calibration, precision_cost


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


def test_what_goes_into_the_exported_graphs_is_heard_and_the_engine_given_back(monkeypatch):
    did = []

    class Graph:
        def run(self, inputs):
            return {"y": 2 * inputs["x"]}

    def say(pipeline):
        assert pipeline.graphs["encoder"].run({"x": np.ones(1)}) == {"y": 2.0}
        pipeline.graphs["encoder"].run({"x": np.full(1, 3.0)})

    engine = SimpleNamespace(close=lambda: did.append("close"))
    monkeypatch.setattr(calibration, "find_engine", lambda name: lambda *given: did.append((name, given)) or engine)
    monkeypatch.setattr(
        calibration, "Pipeline", lambda folder, contents, engine: SimpleNamespace(graphs={"encoder": Graph()})
    )
    monkeypatch.setattr(calibration, "replace", lambda contents, **changes: did.append(changes) or contents)
    monkeypatch.setattr(calibration, "say", say)
    exported = SimpleNamespace(files={"encoder": "its file", "waveglow": "another"})
    heard = calibration.listen(SimpleNamespace(made_of={"encoder": "digest"}), "onnx", exported)
    assert heard == {"encoder": {"x": np.full(1, 3.0)}}  # the latest
    assert did == [
        ("onnxruntime", (0, 1, {})),
        {"engine": "onnxruntime", "files": {"encoder": "its file"}},
        "close",
    ]
