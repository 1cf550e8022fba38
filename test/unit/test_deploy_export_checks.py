"""An export before it begins: what is read with which hints, what is refused, and that nothing is written then."""

import json
from types import SimpleNamespace

import onnx
import pytest
import torch
from deploy_toys import exported, models_dir, toy

from common.program import UserError
from conftest import ROOT
from tools.deploy import models
from tools.deploy.checkpoints import Wanted
from tools.deploy.export_model import to_onnx, verify
from tools.deploy.export_model.example_inputs import example_inputs
from tools.deploy.models import PACKAGES


@pytest.fixture
def written(monkeypatch):
    """What would be written: the models' configurations, and all else."""
    models_dir()  # itself exported
    written = []
    monkeypatch.setattr(to_onnx, "write", lambda found, folder, *more: written.append((found, *more)))
    return written


def wanted(**more):
    paths = {kind: str(models_dir() / f"{kind}.safetensors") for kind in PACKAGES}
    return Wanted(**{"paths": paths, "named": True, "options": ["--some"]} | more)


@pytest.mark.parametrize(("opset", "meant"), [(None, 11), (13, 13), (18, 18)])
def test_the_opset_is_the_oldest_unless_another_is_asked_for(written, tmp_path, opset, meant):
    to_onnx.export_graphs(tmp_path, wanted(sigma=0.4), opset)
    ((found, *more),) = written
    assert more == [0.4, meant, ["--some"]]
    assert {kind: model.source.path for kind, model in found.items()} == wanted().paths


def test_what_is_said_of_a_checkpoint_reaches_both_models(written, tmp_path, monkeypatch):
    hints = {"tacotron2_config": {"gate_threshold": 0.3}, "waveglow_config": {}}
    asked, load = [], models.load
    monkeypatch.setattr(models, "load", lambda *given: asked.append(given) or load(*given[:2]))
    to_onnx.export_graphs(tmp_path, wanted(hints=hints))
    assert asked == [(kind, path, hints) for kind, path in wanted().paths.items()]


@pytest.mark.parametrize(("cleaners", "meant"), [([], ["english_cleaners"]), (["basic_cleaners"], ["basic_cleaners"])])
def test_texts_are_read_as_the_voice_wants_or_as_in_the_training(written, tmp_path, cleaners, meant):
    to_onnx.export_graphs(tmp_path, wanted(cleaners=cleaners))
    assert written[0][0]["tacotron2"].config.data_config.text_cleaners == meant


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("tacotron2", {"symbols": ["_", "a"]}, "symbols"),
        ("waveglow", {"hop_length": 512}, "hop_length"),
        ("waveglow", {"sampling_rate": 16000}, "sampling_rate"),
    ],
)
def test_models_that_cannot_speak_together_are_refused_before_anything_is_written(
    written, tmp_path, monkeypatch, kind, changes, says
):
    load = models.load

    def changed(of, path, hints=None):
        model = load(of, path, hints)
        for name, value in changes.items() if of == kind else ():
            setattr(model.config.data_config, name, value)
        return model

    monkeypatch.setattr(models, "load", changed)
    with pytest.raises(UserError, match=says):
        to_onnx.export_graphs(tmp_path / "new", wanted())
    assert written == []
    assert not (tmp_path / "new").exists()


def test_a_graph_that_onnx_finds_invalid_is_not_written(tmp_path, monkeypatch):
    """Nor the contents, without which the folder is not used."""
    graph, checked = exported()["postnet"], []

    def refuse(graph, full_check):
        checked.append(full_check)
        raise ValueError("no valid graph")

    monkeypatch.setattr(to_onnx.onnx.checker, "check_model", refuse)
    monkeypatch.setattr(to_onnx, "exports", lambda model, opset: iter([graph]))
    with pytest.raises(ValueError, match="no valid graph"):
        to_onnx.write({kind: toy(kind) for kind in PACKAGES}, tmp_path, 0.6)
    assert (checked, list(tmp_path.iterdir())) == ([True], [])


def test_a_graph_that_is_off_its_model_is_not_written(tmp_path, monkeypatch):
    spoiled = exported()["postnet"]._replace(module=SimpleNamespace())
    monkeypatch.setattr(to_onnx, "exports", lambda model, opset: iter([spoiled]))
    monkeypatch.setattr("tools.deploy.export_model.verify.difference", lambda *_: 1.1e-3)
    with pytest.raises(UserError, match=r"postnet.onnx is off its model by 0.0011, more than 0.001: not written"):
        to_onnx.write({kind: toy(kind) for kind in PACKAGES}, tmp_path, 0.6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("batch", "length"), [(3, 7), (5, 3)])
def test_inputs_to_compare_with_are_those_of_a_batch_of_texts(batch, length):
    """Shorter ones among them, whose padding the mask shows; no two inputs alike, the same for the same sizes."""
    signatures = toy("tacotron2").signatures() | toy("waveglow").signatures()
    lengths = [max(1, length - i) for i in range(batch)]
    for signature in signatures.values():
        inputs = example_inputs(signature, batch, length)
        again, other = example_inputs(signature, batch, length), example_inputs(signature, batch + 1, length)
        assert list(inputs) == list(signature.inputs)
        for name, port in signature.inputs.items():
            assert inputs[name].dtype == getattr(torch, port.dtype)
            assert inputs[name].shape == port.shape(dict(batch=batch, text=length, mel=length, steps=length))
            assert torch.equal(inputs[name], again[name])
            if port.dtype == "float32":
                assert not torch.equal(inputs[name].flatten()[:5], other[name].flatten()[:5]) or name == "prenet_masks"
        for name in {"sequence_lengths", "mel_lengths", "max_decoder_steps"} & inputs.keys():
            assert inputs[name].tolist() == lengths
        if "mask" in inputs:
            assert (~inputs["mask"]).sum(1).tolist() == lengths
            assert not inputs["mask"][:, 0].any()
        if "prenet_masks" in inputs:
            assert set(inputs["prenet_masks"].flatten().tolist()) == {0.0, 2.0}
        floats = [inputs[name].flatten()[:5].tolist() for name, port in signature.inputs.items() if port.axes[1:]]
        assert len({json.dumps(each) for each in floats}) == len(floats)


@pytest.mark.parametrize("spoiled", [0, 1])
@pytest.mark.parametrize(
    ("by", "is_told"), [(0.5, 0.5), (-0.5, 0.5), (float("nan"), float("nan")), (None, float("inf"))]
)
@pytest.mark.parametrize("size", verify.SIZES)
def test_a_graph_is_compared_in_all_outputs_at_all_sizes(size, spoiled, by, is_told):
    """``by``: how far one value is off; None: the shape is another one."""
    graph = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (float[b, n] x) => (float[b, n] y, float[b, n] z) { y = Identity (x)  z = Neg (x) }""")

    def model(x):
        outputs = [x, -x]
        if x.shape == size:
            outputs[spoiled] = outputs[spoiled].clone()[:, : None if by is not None else -1]
            outputs[spoiled][-1, -1] += by or 0
        return outputs

    found = verify.difference(graph, model, lambda batch, length: {"x": torch.rand(batch, length)})
    assert found == pytest.approx(is_told, abs=1e-6, nan_ok=True)


def test_a_graph_that_is_its_model_is_at_no_distance():
    graph = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]> g (float[b, n] x) => (float[b, n] y)
        { y = Identity (x) }""")
    assert verify.difference(graph, lambda x: x, lambda batch, length: {"x": torch.rand(batch, length)}) == 0


def test_graphs_do_not_say_on_which_machine_they_were_made():
    """The exporter notes in which file each operator was defined."""
    for export in exported().values():
        everything = export.graph.SerializeToString()
        assert str(ROOT).encode() not in everything and b"site-packages" not in everything
