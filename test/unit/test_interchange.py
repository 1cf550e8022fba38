"""Checkpoints of every form come in with the reference's outputs, and go out and in again unchanged."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from common import checkpoint
from common.config import from_dict
from common.device import pick_device
from common.interchange import fitted, load_weights, read
from common.program import UserError
from conftest import ROOT
from tools import convert_checkpoint
from tools.convert_checkpoint import FORMS, GLOW, glow_importable, glow_module, to_native
from waveglow.config import Config, build_model
from waveglow.vocoder import Vocoder

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")

DATA = ROOT / "test/data/reference"
SHARED = ROOT.parent / "shared/reference"
WAVEGLOW_FILES = [
    "waveglow.pt",
    "waveglow_nvidia_whole_module.pt",
    "waveglow_nvidia_whole_module_no_weightnorm.pt",
    "waveglow_ascend.pt",
    "waveglow_dle.pt",
]
TACOTRON2_FILES = ["tacotron2_nvidia.pt", "tacotron2_dle.pt"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For such small models the threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def loaded(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same_weights(given: dict, expected: dict):
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        assert torch.equal(tensor, expected[name]), name
        assert tensor.dtype == expected[name].dtype and tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.nbytes  # independent of the file and of each other


def assert_same_outputs(path: Path, numbers: dict):
    """The model built and filled from the file computes the reference's numbers, both ways."""
    config, weights = load_weights(path, "waveglow")
    model = build_model(from_dict(Config, config))
    model.load_state_dict(fitted(path, weights, model))
    with torch.no_grad():
        z, log_s, log_det = model(numbers["mel"], numbers["audio"])
        audio = model.infer(numbers["mel"], numbers["infer"]["sigma"], numbers["infer"]["noise"])
    torch.testing.assert_close(z, numbers["z"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_s, numbers["log_s"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(audio, numbers["infer"]["audio"], rtol=1e-4, atol=1e-4)
    assert len(log_det) == len(numbers["log_det"])


# The reference's files in.


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
    if not (SHARED / "tacotron2.pt").exists():
        pytest.skip("the reference's tacotron2.pt is not here")
    expected = loaded(SHARED / "tacotron2.pt")
    config, weights = load_weights(DATA / name, "tacotron2")
    assert_same_weights(weights, expected["state_dict"])
    assert len(config["tacotron2_config"]) == 16
    assert config["tacotron2_config"].items() <= expected["config"].items()
    saved = load_weights(SHARED / "tacotron2.pt")[0]
    assert saved["tacotron2_config"]["gate_threshold"] == expected["config"]["gate_threshold"]
    assert saved["data_config"]["mel_fmax"] == 8000.0


def test_the_iteration_is_kept():
    assert [read(DATA / name).iteration for name in WAVEGLOW_FILES] == [0, 1234, 0, 21000, 0]


# Out in each form and in again.


def convert(source: Path, target: Path, form: str) -> Path:
    known = read(source)
    native = to_native(known, str(source))
    convert_checkpoint.write(str(target), native if form == "native" else FORMS[form](known))
    return target


@pytest.mark.parametrize("form", ["native", *FORMS])
@pytest.mark.parametrize("name", WAVEGLOW_FILES + TACOTRON2_FILES)
def test_out_and_in_again(tmp_path, name, form):
    before = read(DATA / name)
    after = read(convert(DATA / name, tmp_path / "out", form))
    if form == "native" and name.endswith("no_weightnorm.pt"):
        assert_same_outputs(tmp_path / "out", loaded(DATA / "waveglow.pt"))
    else:
        assert_same_weights(after.weights, before.weights)
    assert after.kind == before.kind
    assert after.iteration == (0 if form == "dle" else before.iteration)
    for section, values in before.config.items():
        if section in after.config:
            assert after.config[section].items() >= values.items()


def test_native_is_what_this_repository_loads(tmp_path, reference):
    path = convert(DATA / "waveglow_dle.pt", tmp_path / "waveglow_0", "native")
    assert checkpoint.load(path)["progress"]["finetuned_from"] == str(DATA / "waveglow_dle.pt")
    vocoder = Vocoder(path, pick_device("cpu"))
    assert vocoder.config.waveglow_config.n_flows == reference["config"]["n_flows"]
    assert vocoder.synthesize(reference["mel"][0]).isfinite().all()


@pytest.mark.parametrize("form", ["dle", "ascend"])
def test_written_as_the_reference_has_it(tmp_path, form):
    source = DATA / f"waveglow_{form}.pt"
    expected, written = loaded(source), torch.load(convert(source, tmp_path / "out", form), weights_only=True)
    where = "state_dict" if form == "dle" else "model"
    assert_same_weights(written[where], expected[where])
    assert written.get("config") == expected.get("config")


def test_the_module_has_all_that_nvidias_has(tmp_path):
    """Each module of the pickle: same class, same attributes. (NVIDIA's own code was seen to train on it.)"""
    path = convert(DATA / "waveglow_nvidia_whole_module.pt", tmp_path / "out", "nvidia")
    with glow_importable():
        ours, theirs = (
            torch.load(file, weights_only=False)["model"] for file in (path, DATA / "waveglow_nvidia_whole_module.pt")
        )
    described = [
        {name: (type(module).__name__, sorted(vars(module))) for name, module in model.named_modules()}
        for model in (ours, theirs)
    ]
    assert described[0] == described[1]
    start = ours.WN[0].start
    torch.testing.assert_close(start.weight, start.weight_g * start.weight_v / start.weight_v.norm(dim=1)[:, None])
    assert "glow" not in sys.modules


def test_a_written_optimizer_can_go_on(tmp_path):
    written = torch.load(convert(DATA / "tacotron2_dle.pt", tmp_path / "out", "nvidia"), weights_only=True)
    parameters = [v for n, v in written["state_dict"].items() if "running_" not in n and "num_batches" not in n]
    torch.optim.Adam(parameters).load_state_dict(written["optimizer"])


def test_the_program_runs_from_any_folder(tmp_path):
    command = [sys.executable, ROOT / "tools/convert_checkpoint.py", DATA / "waveglow_ascend.pt", "a folder/out"]
    done = subprocess.run([*command, "--to=safetensors"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote a folder/out: WaveGlow at iteration 21000, as safetensors\n"
    assert_same_outputs(tmp_path / "a folder/out", loaded(DATA / "waveglow.pt"))


def test_a_target_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: .*Is a directory"):
        convert(DATA / "waveglow.pt", tmp_path, "dle")


# Files like those in the wild, made of the reference.


def renamed(state: dict, *rules: tuple[str, str]) -> dict:
    for pattern, replacement in rules:
        state = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
    return state


def fused(state: dict) -> dict:
    plain = {name: tensor for name, tensor in state.items() if "weight_" not in name}
    for name, v in state.items():
        if name.endswith("weight_v"):
            plain[name[:-2]] = v * state[f"{name[:-1]}g"] / v.flatten(1).norm(dim=1)[:, None, None]
    return plain


def with_layers(state: dict) -> dict:
    """As between 2018-11 and 2019-08."""
    old = {}
    for name, tensor in state.items():
        if "cond_layer." in name:
            for i in range(3):
                old[name.replace("cond_layer", f"cond_layers.{i}")] = tensor[24 * i : 24 * (i + 1)]
        else:
            old[name] = tensor
    return old


def with_separate_layers(state: dict) -> dict:
    """As before 2018-11; the last layer has the skip part alone."""
    old = {}
    for name, tensor in with_layers(state).items():
        if "res_skip_layers" not in name:
            old[name] = tensor
        elif ".2." in name:
            old[name.replace("res_skip", "skip")] = tensor
        else:
            old[name.replace("res_skip", "res")] = tensor[:12]
            old[name.replace("res_skip", "skip")] = tensor[12:]
    return old


VARIANTS = {
    "bare": lambda state: state,
    "nested": lambda state: {"epoch": 3, "networks": {"vocoder": {"state_dict": state}}},
    "with an average": lambda state: {"ema": {n: t + 1 for n, t in state.items()}, "model": state},
    "module.": lambda state: {"model": renamed(state, ("^", "module."))},
    "module.1.": lambda state: {"state_dict": renamed(state, ("^", "module.1."))},
    "_orig_mod.": lambda state: {"model": renamed(state, ("^", "_orig_mod."))},
    "module._orig_mod.": lambda state: {"model": renamed(state, ("^", "module._orig_mod."))},
    "_orig_mod.module.1.": lambda state: {"model": renamed(state, ("^", "_orig_mod.module.1."))},
    "generator.": lambda state: renamed(state, ("^", "generator.")),
    "compiled parts": lambda state: renamed(state, (r"^WN\.(\d)\.", r"WN.\1._orig_mod.")),
    "new weight norm": lambda state: renamed(
        state, ("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1")
    ),
    "fused": fused,
    "layers": with_layers,
    "separate layers": with_separate_layers,
    "fused separate layers": lambda state: with_separate_layers(fused(state)),
    "all at once": lambda state: renamed(
        with_separate_layers(state),
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
        ("^", "module.1._orig_mod."),
    ),
    "4-D, time last": lambda state: {
        n: t[:, :, None] if t.ndim == 3 and n[:2] != "up" else t for n, t in state.items()
    },
    "parameters": lambda state: {n: nn.Parameter(t) for n, t in state.items()},
    "doubles": lambda state: {n: t.double() for n, t in state.items()},
}


@pytest.mark.parametrize("file_format", ["zip", "legacy"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(tmp_path, reference, variant, file_format):
    value = VARIANTS[variant](reference["state_dict"])
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=file_format == "zip")
    config, weights = load_weights(tmp_path / "a.pt")
    assert config == {"waveglow_config": reference["config"], "data_config": {"hop_length": 256}}
    if "fused" in variant:
        assert_same_outputs(tmp_path / "a.pt", reference)
    else:
        assert_same_weights(weights, reference["state_dict"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, reference, dtype):
    torch.save({n: t.to(dtype) for n, t in reference["state_dict"].items()}, tmp_path / "a.pt")
    expected = {n: t.to(dtype).float() for n, t in reference["state_dict"].items()}
    assert_same_weights(load_weights(tmp_path / "a.pt")[1], expected)


@pytest.mark.parametrize("wrap", [lambda module: module, nn.DataParallel], ids=["module", "DataParallel"])
@pytest.mark.parametrize("file_format", ["zip", "legacy"])
def test_pickled_modules(tmp_path, reference, file_format, wrap):
    """Anywhere in the file, in either format; what no shape tells is read off the attributes."""
    sizes = reference["config"] | {"n_early_every": 7}
    config = {"waveglow_config": sizes, "data_config": {"hop_length": 128}}
    model = wrap(glow_module(reference["state_dict"], config))
    with glow_importable():
        torch.save({"model": model}, tmp_path / "a.pt", _use_new_zipfile_serialization=file_format == "zip")
    read_config, weights = load_weights(tmp_path / "a.pt")
    assert_same_weights(weights, reference["state_dict"])
    assert read_config == config
    assert "glow" not in sys.modules


def test_a_module_of_old_torch(tmp_path, reference):
    """Fewer attributes in those days, a backend among them."""
    model = glow_module(reference["state_dict"], load_weights(DATA / "waveglow.pt")[0])
    for module in model.modules():
        kept = {"_parameters", "_buffers", "_modules", "_forward_pre_hooks", "stride"}
        for name in vars(module).keys() - kept:
            del module.__dict__[name]
        module.__dict__["_backend"] = Backend()
    with glow_importable():
        torch.save(model, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pt").read_bytes()
    assert data.count(b"ctest_interchange\nbackend_\n") == 1
    (tmp_path / "a.pt").write_bytes(
        data.replace(b"ctest_interchange\nbackend_\n", b"ctorch.nn.backends.thnn\n_get_thnn_function_backend\n")
    )
    assert_same_outputs(tmp_path / "a.pt", reference)


def backend_():
    pass


class Backend:
    def __reduce__(self):
        return backend_, ()


def test_the_first_architecture_is_refused(tmp_path, reference):
    model = glow_module(reference["state_dict"], load_weights(DATA / "waveglow.pt")[0])
    with glow_importable():
        torch.save({"model": model}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data.replace(b"cglow\nWaveGlow\n", b"cglow_old\nWaveGlow\n"))
    with pytest.raises(UserError, match="couplings change sides"):
        load_weights(tmp_path / "a.pt")


def test_what_the_file_says_counts_more_than_the_shapes(tmp_path, reference):
    config = {
        "data_config": {"hop_length": 128, "sampling_rate": 16000},
        "waveglow_config": reference["config"] | {"n_early_every": 3, "WN_config": {"n_layers": 5}},
    }
    torch.save({"state_dict": reference["state_dict"], "config": config}, tmp_path / "a.pt")
    known, _ = load_weights(tmp_path / "a.pt")
    assert known["data_config"] == {"hop_length": 128, "sampling_rate": 16000}
    assert known["waveglow_config"]["n_early_every"] == 3
    assert known["waveglow_config"]["WN_config"] == {"n_layers": 5, "n_channels": 12, "kernel_size": 3}


def test_without_early_exits_none_are_made_up(tmp_path):
    sizes = {"n_mel_channels": 2, "n_flows": 5, "n_early_every": 9, "WN_config": {"n_layers": 1, "n_channels": 2}}
    model = build_model(from_dict(Config, {"waveglow_config": sizes}))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    model = build_model(from_dict(Config, load_weights(tmp_path / "a.pt")[0]))
    assert model.n_remaining_channels == 8 and len(model.WN) == 5


# What is no such checkpoint.


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

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match="cannot read x: Permission denied"):
        load_weights("x")


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
    with pytest.raises(UserError, match=f"is no whole WaveGlow: {name} is missing"):
        load_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["upsample.weight", "convinv.2.conv.weight", "WN.0.end.weight"])
def test_a_weight_that_tells_the_size_is_of_another_kind(tmp_path, reference, name):
    torch.save(reference["state_dict"] | {name: torch.tensor(1.0)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="few dimensions"):
        load_weights(tmp_path / "a.pt")


def test_old_layers_with_a_hole(tmp_path, reference):
    state = with_separate_layers(reference["state_dict"])
    state = {n: t for n, t in state.items() if "WN.1.skip_layers.0" not in n and "WN.2.cond_layers.1" not in n}
    torch.save(state, tmp_path / "a.pt")
    config, weights = load_weights(tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"missing: WN\.1\.res_skip_layers\.0\.bias"):
        fitted("a.pt", weights, build_model(from_dict(Config, config)))
    state["WN.0.cond_layers.1.weight_v"] = torch.zeros(24, 1, 1)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match="do not fit together"):
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
