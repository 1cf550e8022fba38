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
from common.checkpoints import interchange
from common.checkpoints.interchange import fitted, load_weights, read, steps_of_adam
from common.checkpoints.nvidia_names import nvidia_weights
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


def test_differences_are_a_short_table(reference):
    model = build_model(from_dict(Config, load_weights(DATA / "waveglow.pt")[0]))
    state = dict(reference["state_dict"])
    del state["WN.1.start.bias"]
    state["WN.2.end.bias"] = torch.zeros(4)
    state["WN.2.extra"], state["x" * 101] = torch.zeros(1, 2), torch.zeros(1)
    with pytest.raises(UserError) as error:
        fitted("a.pt", state, model)
    assert str(error.value).splitlines() == [
        "a.pt does not fit the model, 4 weights differ:",
        "  missing: WN.1.start.bias [12]",
        "  unexpected: WN.2.extra [1, 2]",
        f"  unexpected: {'x' * 100} [1]",
        "  shape: WN.2.end.bias [4], the model's is [6]",
    ]
    with pytest.raises(UserError) as error:
        fitted("a.pt", {}, model)
    lines = str(error.value).splitlines()
    assert len(lines) == 10 and lines[-1] == "  ... and 102 more"


@pytest.mark.parametrize(("number", "more"), [(8, []), (9, ["  ... and 1 more"])])
def test_the_table_has_eight_rows_and_counts_the_others(number, more):
    model = nn.ParameterList(nn.Parameter(torch.zeros(i + 1)) for i in range(number))
    with pytest.raises(UserError) as error:
        fitted("a.pt", {}, model)
    rows = [f"  missing: {i} [{i + 1}]" for i in range(8)]
    assert str(error.value).splitlines() == [f"a.pt does not fit the model, {number} weights differ:", *rows, *more]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_weights_that_are_no_numbers_are_counted(number):
    model = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(4))
    weights = {str(i): torch.full((1,), float("inf") if i < number else 0.0) for i in range(4)}
    with pytest.raises(UserError, match=f"not finite: in 0 and {number - 1} other weights"):
        fitted("a.pt", weights, model)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_a_fused_weight_becomes_one_with_weight_norm(dimensions):
    """Only a convolution's does: its g is the norm of each output channel."""
    model = nn.Module()
    shape = [3, 2, 5, 4][:dimensions]
    weight = torch.randn(shape)
    g_shape = [3] + [1] * (dimensions - 1)
    for name, size in (("weight_g", g_shape), ("weight_v", shape)):
        model.register_parameter(name, nn.Parameter(torch.zeros(size)))
    if dimensions != 3:
        with pytest.raises(UserError, match="3 weights differ"):
            fitted("a.pt", {"weight": weight}, model)
        return
    found = fitted("a.pt", {"weight": weight}, model)
    again = found["weight_v"] * found["weight_g"] / found["weight_v"].flatten(1).norm(dim=1)[:, None, None]
    assert found.keys() == {"weight_g", "weight_v"} and torch.allclose(again, weight)


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


@pytest.mark.parametrize("value", [0, 1, 0.0, 2**53 - 1, torch.tensor(5.0), torch.tensor([5])])
def test_steps_of_adam_are_a_count(value):
    assert steps_of_adam(value) == float(value)


@pytest.mark.parametrize(
    "value", [-1, 2**53, float("nan"), float("inf"), True, None, "5", torch.tensor([5, 5]), torch.tensor(-1.0)]
)
def test_other_steps_of_adam_are_none(value):
    assert steps_of_adam(value) is None


@pytest.mark.parametrize(("number", "is_taken"), [(8, True), (9, False)])
def test_names_of_one_tensor_are_limited(number, is_taken):
    """To four times the tensors' memory and 4 MB: of 1 MB there may be eight."""
    tensor = torch.zeros(2**18)
    tensors = {f"WN.{i}.start.bias": tensor for i in range(number)}
    if is_taken:
        weights = nvidia_weights("a.pt", tensors)
        assert weights.keys() == tensors.keys()
        assert len({weight.data_ptr() for weight in weights.values()}) == number
    else:
        with pytest.raises(UserError, match="so many names for one tensor"):
            nvidia_weights("a.pt", tensors)


@pytest.mark.parametrize("shape", [(3, 2, 5, 1), (3, 2, 1, 5), (3, 2, 1, 1)])
def test_the_ascend_ports_convolutions_lose_the_axis_that_they_gained(shape):
    weight = torch.randn(shape)
    (found,) = nvidia_weights("a.pt", {"WN.0.start.weight": weight}).values()
    assert torch.equal(found, weight.reshape(3, 2, -1)) and found.shape[2] == max(shape[2:])


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
