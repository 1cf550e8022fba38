"""Checkpoints of every form come in with the reference's outputs; other files are refused in a sentence."""

import pytest
import torch
from torch import nn

from checkpoint_files import (
    DATA,
    TACOTRON2_FILES,
    WAVEGLOW_FILES,
    assert_same_outputs,
    assert_same_weights,
    convert,
    loaded,
)
from common.checkpoints import interchange
from common.checkpoints.interchange import load_weights, read
from common.program import UserError
from tools.convert_checkpoint import GLOW, glow_importable

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


@pytest.mark.parametrize("name", WAVEGLOW_FILES)
def test_outputs_are_the_references(name):
    assert_same_outputs(DATA / name, loaded(DATA / ("waveglow_dle_io.pt" if "dle" in name else "waveglow.pt")))


@pytest.mark.parametrize("name", WAVEGLOW_FILES)
def test_the_configuration_is_the_references(name, reference):
    config, _ = load_weights(DATA / name)
    assert config == {"waveglow_config": reference["config"], "data_config": {"hop_length": 256}}


@pytest.mark.parametrize("name", WAVEGLOW_FILES[:2] + WAVEGLOW_FILES[3:4])
def test_names_and_weights_are_nvidias(name, reference):
    assert_same_weights(load_weights(DATA / name)[1], reference["state_dict"])


@pytest.mark.parametrize("name", TACOTRON2_FILES)
def test_tacotron2_is_the_references(name):
    expected = loaded(DATA / "tacotron2.pt")
    config, weights = load_weights(DATA / name, "tacotron2")
    assert_same_weights(weights, expected["state_dict"])
    assert len(config["tacotron2_config"]) == 16
    assert config["tacotron2_config"].items() <= expected["config"].items()
    saved = load_weights(DATA / "tacotron2.pt")[0]
    assert saved["tacotron2_config"]["gate_threshold"] == expected["config"]["gate_threshold"]
    assert saved["data_config"]["mel_fmax"] == 8000.0


def test_the_iteration_is_kept():
    assert [read(DATA / name).iteration for name in WAVEGLOW_FILES] == [0, 1234, 0, 21000, 0]


@pytest.mark.parametrize(
    "name, expect, message",
    [
        ("tacotron2_dle.pt", "waveglow", "is a checkpoint of Tacotron2, and one of WaveGlow is needed here"),
        ("waveglow_dle.pt", "tacotron2", "is a checkpoint of WaveGlow, and one of Tacotron2 is needed here"),
        ("mel.pt", None, "holds no weights of WaveGlow or Tacotron2"),
        ("mel.pt", "waveglow", "holds no weights of WaveGlow$"),
    ],
)
def test_another_model_or_none_is_said_in_a_sentence(name, expect, message):
    with pytest.raises(UserError, match=message):
        load_weights(DATA / name, expect)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_truncated_files_are_refused(tmp_path, reference, form, share):
    path = tmp_path / "a.pt"
    if form == "safetensors":
        convert(DATA / "waveglow.pt", path, form)
    else:
        torch.save(reference["state_dict"], path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"is truncated or no checkpoint$"):
        load_weights(path)


@pytest.mark.parametrize(("depth", "is_found"), [(0, True), (3, True), (4, False)])
def test_weights_are_looked_for_three_levels_deep(tmp_path, reference, depth, is_found):
    contents = dict(reference["state_dict"])
    for level in range(depth):
        contents = {f"level{level}": contents, "notes": {"b": 1}}
    torch.save(contents, tmp_path / "a.pt")
    if is_found:
        assert load_weights(tmp_path / "a.pt")[1].keys() == load_weights(DATA / "waveglow.pt")[1].keys()
    else:
        with pytest.raises(UserError, match="holds no weights"):
            load_weights(tmp_path / "a.pt")


def test_an_average_of_the_weights_comes_first_and_other_entries_last(tmp_path, reference):
    states = {name: {n: t + i for n, t in reference["state_dict"].items()} for i, name in enumerate("abcd")}
    for saved, wanted in (
        ({"backup": states["a"], "model": states["b"]}, "b"),
        ({"backup": states["a"], "state_dict": states["c"]}, "c"),
        ({"backup": states["a"], "model": states["b"], "average": states["d"]}, "d"),
    ):
        torch.save(saved, tmp_path / "a.pt")
        bias = load_weights(tmp_path / "a.pt")[1]["WN.0.start.bias"]
        assert torch.equal(bias, states[wanted]["WN.0.start.bias"])


@pytest.mark.parametrize("name", ["upsample.weight", "convinv.2.conv.weight", "WN.0.end.weight"])
def test_a_weight_that_tells_the_size_must_be_there(tmp_path, reference, name):
    torch.save({n: t for n, t in reference["state_dict"].items() if n != name}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"is not a complete WaveGlow: {name} is missing"):
        load_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["upsample.weight", "convinv.2.conv.weight", "WN.0.end.weight"])
def test_a_weight_that_tells_the_size_must_have_its_dimensions(tmp_path, reference, name):
    torch.save(reference["state_dict"] | {name: torch.tensor(1.0)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="few dimensions"):
        load_weights(tmp_path / "a.pt")


def test_modules_in_a_circle_end(tmp_path):
    model = GLOW.WaveGlow()
    model.WN, model.convinv = nn.ModuleList(), nn.ModuleList([model, model])  # each is looked into once
    with glow_importable():
        torch.save(model, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds no weights"):
        load_weights(tmp_path / "a.pt")


def nested(depth):
    """Modules in one another, the innermost of which has a weight of a WaveGlow."""
    module = nn.ModuleDict({"WN": nn.ModuleDict({"0": nn.Linear(1, 1)})})
    for _ in range(depth):
        module = nn.Sequential(module)
    return module


@pytest.mark.parametrize(("depth", "said"), [(48, "is not a complete WaveGlow"), (49, "holds no weights")])
def test_modules_are_looked_into_fifty_deep(tmp_path, depth, said):
    torch.save(nested(depth), tmp_path / "a.pt")
    with pytest.raises(UserError, match=said):
        load_weights(tmp_path / "a.pt")


@pytest.mark.parametrize(("most", "said"), [(10, "holds no weights"), (9, "its modules hold more than 9 others")])
def test_a_search_through_modules_has_an_end(tmp_path, monkeypatch, most, said):
    """Of all that a file holds: two of five."""
    monkeypatch.setattr(interchange, "MOST_VISITS", most)
    torch.save({name: nn.Sequential(*[nn.ReLU() for _ in range(4)]) for name in "ab"}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=said):
        load_weights(tmp_path / "a.pt")
