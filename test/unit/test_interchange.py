"""Checkpoints of every form come in with the reference's outputs; other files are refused in a sentence."""

import json

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
from common.checkpoints.interchange import fitted, load_weights, read
from common.config_reading import from_dict
from common.program import UserError
from tools.convert_checkpoint import GLOW, glow_importable
from waveglow.config import Config, build_model

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
        ("nothing.pt", None, "no checkpoint at "),
        (".", None, "is a folder"),
    ],
)
def test_other_things_are_said_in_a_sentence(name, expect, message):
    with pytest.raises(UserError, match=message):
        load_weights(DATA / name, expect)


def test_an_unreadable_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").touch()
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"cannot read .*x: Permission denied"):
        load_weights(tmp_path / "x")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_truncated_files(tmp_path, reference, form, share):
    path = tmp_path / "a.pt"
    if form == "safetensors":
        convert(DATA / "waveglow.pt", path, form)
    else:
        torch.save(reference["state_dict"], path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"is truncated or no checkpoint$"):
        load_weights(path)


def test_a_text_is_no_checkpoint(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match="is truncated or no checkpoint"):
        load_weights(tmp_path / "a.json")


def test_differences_are_a_short_table(tmp_path, reference):
    model = build_model(from_dict(Config, load_weights(DATA / "waveglow.pt")[0]))
    state = dict(reference["state_dict"])
    del state["WN.1.start.bias"]
    state["WN.2.end.bias"] = torch.zeros(4)
    state["WN.2.extra"] = torch.zeros(1, 2)
    with pytest.raises(UserError) as error:
        fitted("a.pt", state, model)
    assert str(error.value).splitlines() == [
        "a.pt does not fit the model, 3 weights differ:",
        "  missing: WN.1.start.bias [12]",
        "  unexpected: WN.2.extra [1, 2]",
        "  shape: WN.2.end.bias [4], the model's is [6]",
    ]
    with pytest.raises(UserError) as error:
        fitted("a.pt", {}, model)
    lines = str(error.value).splitlines()
    assert len(lines) == 10 and lines[-1] == "  ... and 102 more"


@pytest.mark.parametrize("name", ["upsample.weight", "convinv.2.conv.weight", "WN.0.end.weight"])
def test_a_weight_that_tells_the_size_is_missing(tmp_path, reference, name):
    torch.save({n: t for n, t in reference["state_dict"].items() if n != name}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"is not a complete WaveGlow: {name} is missing"):
        load_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["upsample.weight", "convinv.2.conv.weight", "WN.0.end.weight"])
def test_a_weight_that_tells_the_size_is_of_another_kind(tmp_path, reference, name):
    torch.save(reference["state_dict"] | {name: torch.tensor(1.0)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="few dimensions"):
        load_weights(tmp_path / "a.pt")


def test_the_same_weight_twice(tmp_path, reference):
    torch.save(reference["state_dict"] | {"ema.WN.0.end.bias": torch.zeros(8)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"WN\.0\.end\.bias more than once"):
        load_weights(tmp_path / "a.pt")


def test_fitted_adds_what_old_torch_did_not_count():
    model = nn.Sequential(nn.BatchNorm1d(2))
    state = {n: t for n, t in model.state_dict().items() if "num_batches" not in n}
    assert fitted("a.pt", state, model).keys() == model.state_dict().keys()


def test_modules_in_a_circle_end(tmp_path):
    model = GLOW.WaveGlow()
    model.WN, model.convinv = nn.ModuleList(), nn.ModuleList([model])
    with glow_importable():
        torch.save(model, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds no weights"):
        load_weights(tmp_path / "a.pt")
