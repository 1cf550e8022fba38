"""Files like those in the wild, made of the reference, come in as it does."""

import re
import sys

import pytest
import torch
from torch import nn

from checkpoint_files import (
    DATA,
    assert_same_outputs,
    assert_same_weights,
)
from common.checkpoints.interchange import fitted, load_weights
from common.config_reading import from_dict
from common.program import UserError
from tools.convert_checkpoint import glow_importable, glow_module
from waveglow.config import Config, build_model

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


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
def test_each_variant_comes_in_as_the_reference(tmp_path, reference, variant, file_format):
    value = VARIANTS[variant](reference["state_dict"])
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=file_format == "zip")
    config, weights = load_weights(tmp_path / "a.pt")
    assert config == {"waveglow_config": reference["config"], "data_config": {"hop_length": 256}}
    if "fused" in variant:
        assert_same_outputs(tmp_path / "a.pt", reference)
    else:
        assert_same_weights(weights, reference["state_dict"])


@pytest.mark.parametrize("wrap", [lambda module: module, nn.DataParallel], ids=["module", "DataParallel"])
@pytest.mark.parametrize("file_format", ["zip", "legacy"])
def test_a_pickled_module_is_read_with_its_attributes(tmp_path, reference, file_format, wrap):
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


def test_a_module_of_old_torch_comes_in_as_the_reference(tmp_path, reference):
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
    assert data.count(f"c{__name__}\nbackend_\n".encode()) == 1
    (tmp_path / "a.pt").write_bytes(
        data.replace(f"c{__name__}\nbackend_\n".encode(), b"ctorch.nn.backends.thnn\n_get_thnn_function_backend\n")
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


def test_without_early_exits_none_are_made_up(tmp_path):
    sizes = {"n_mel_channels": 2, "n_flows": 5, "n_early_every": 9, "WN_config": {"n_layers": 1, "n_channels": 2}}
    model = build_model(from_dict(Config, {"waveglow_config": sizes}))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    model = build_model(from_dict(Config, load_weights(tmp_path / "a.pt")[0]))
    assert model.n_remaining_channels == 8 and len(model.WN) == 5


@pytest.mark.parametrize("changes", [dict(n_early_size=4, n_early_every=2), dict(n_flows=3), dict(n_early_size=6)])
def test_the_sizes_are_those_of_the_weights(tmp_path, changes):
    """Early exits of any size, at any place, none with three flows; a hop of a quarter of the upsampling's width."""
    layers = {"n_layers": 2, "n_channels": 4, "kernel_size": 5}
    sizes = dict(n_mel_channels=3, n_flows=5, n_group=10, n_early_every=4, n_early_size=2, upsample_kernel=512)
    sizes |= changes | {"WN_config": layers}
    config = {"waveglow_config": sizes, "data_config": {"hop_length": 128}}
    torch.save(build_model(from_dict(Config, config)).state_dict(), tmp_path / "a.pt")
    assert load_weights(tmp_path / "a.pt")[0] == config


def test_old_layers_with_a_hole_are_refused(tmp_path, reference):
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
