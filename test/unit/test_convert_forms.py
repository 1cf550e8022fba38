"""tools/convert_checkpoint.py: what each form holds beside the weights, and what the program does with its options."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import safetensors
import torch

from checkpoint_files import DATA
from common.checkpoints.interchange import Checkpoint, read
from common.program import UserError
from tools import convert_checkpoint as module
from tools.convert_checkpoint import FORMS, conv_of, fresh_optimizer, glow_importable, glow_module, to_native

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


@pytest.fixture
def waveglow():
    return read(DATA / "waveglow.pt")


def test_an_optimizer_has_all_parameters_and_no_statistics():
    weights = {f"a.{name}": torch.ones(2) for name in ("weight", "bias", "running_mean", "running_var")}
    weights["a.num_batches_tracked"] = torch.tensor(3)
    for kind, rate in (("waveglow", 1e-4), ("tacotron2", 1e-3)):
        made = fresh_optimizer(kind, weights)
        (group,) = made["optimizer"]["param_groups"]
        assert (group["params"], group["lr"], made["learning_rate"]) == ([0, 1], rate, rate)
        assert made["optimizer"]["state"] == {}


@pytest.mark.parametrize("form", ["nvidia", "dle", "ascend"])
@pytest.mark.parametrize(("name", "rate"), [("waveglow_ascend.pt", 1e-4), ("tacotron2_nvidia.pt", 1e-3)])
def test_an_optimizer_has_nvidias_learning_rate_in_each_form(form, name, rate):
    made = FORMS[form](read(DATA / name))
    assert [group["lr"] for group in made["optimizer"]["param_groups"]] == [rate]
    assert made.get("learning_rate") == (None if form == "dle" else rate)


@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("kernel", "dilation", "padding"), [(3, 1, 1), (3, 4, 4), (1, 1, 0), (5, 2, 4)])
def test_a_convolution_is_of_the_size_of_its_weights(has_norm, has_bias, kernel, dilation, padding):
    weights = {"c.weight_v" if has_norm else "c.weight": torch.ones(6, 4, kernel)}
    weights |= {"c.weight_g": torch.ones(6, 1, 1)} if has_norm else {}
    weights |= {"c.bias": torch.ones(6)} if has_bias else {}
    conv = conv_of(weights, "c", dilation)
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (4, 6, (kernel,))
    assert (conv.dilation, conv.padding) == ((dilation,), (padding,))
    assert (conv.bias is not None) == has_bias
    assert hasattr(conv, "weight_g") == has_norm


def test_the_module_of_waveglow_has_its_sizes_and_weights(waveglow):
    model = glow_module(waveglow.weights, waveglow.config)
    sizes = waveglow.config["waveglow_config"]
    for name in ("n_flows", "n_group", "n_early_every", "n_early_size"):
        assert getattr(model, name) == sizes[name]
    wn = sizes["WN_config"]
    assert len(model.WN) == len(model.convinv) == sizes["n_flows"]
    assert {(each.n_layers, each.n_channels) for each in model.WN} == {(wn["n_layers"], wn["n_channels"])}
    assert model.n_remaining_channels == model.convinv[-1].conv.in_channels
    upsample = model.upsample
    assert (upsample.stride, upsample.kernel_size) == ((waveglow.config["data_config"]["hop_length"],), (1024,))
    for name, tensor in waveglow.weights.items():
        assert torch.equal(model.state_dict()[name], tensor), name
    other = waveglow.config | {"data_config": waveglow.config["data_config"] | {"hop_length": 320}}
    assert glow_module(waveglow.weights, other).upsample.stride == (320,)


@pytest.mark.parametrize("before", [None, ModuleType("glow")])
def test_glow_is_there_only_while_it_is_pickled(monkeypatch, before):
    monkeypatch.delitem(sys.modules, "glow", raising=False)
    if before:
        monkeypatch.setitem(sys.modules, "glow", before)
    with pytest.raises(KeyError), glow_importable():
        assert sys.modules["glow"] is module.GLOW
        raise KeyError
    assert sys.modules.get("glow") is before


def test_nvidia_s_form_holds_a_module_or_a_state_dict(waveglow):
    made = FORMS["nvidia"](waveglow)
    assert made.keys() == {"model", "iteration", "optimizer", "learning_rate"}
    assert (type(made["model"]).__name__, made["iteration"]) == ("WaveGlow", waveglow.iteration)
    tacotron2 = read(DATA / "tacotron2_nvidia.pt")
    made = FORMS["nvidia"](tacotron2)
    assert made.keys() == {"state_dict", "iteration", "optimizer", "learning_rate"}
    assert made["state_dict"].keys() == tacotron2.weights.keys()


def test_the_form_of_deeplearningexamples_splits_the_conditioning_and_knows_one_upsampling(waveglow):
    waveglow.config["waveglow_config"]["upsample_kernel"] = 1024
    made = FORMS["dle"](waveglow)
    assert made.keys() == {"epoch", "config", "state_dict", "optimizer"} and made["epoch"] == 0
    own = {name: value for name, value in waveglow.config["waveglow_config"].items() if name != "upsample_kernel"}
    assert made["config"] == own
    layers = own["WN_config"]["n_layers"]
    for name, tensor in waveglow.weights.items():
        if ".cond_layer." not in name:
            assert torch.equal(made["state_dict"][f"module.{name}"], tensor)
            continue
        parts = [made["state_dict"]["module." + name.replace("cond_layer", f"cond_layers.{i}")] for i in range(layers)]
        assert torch.equal(torch.cat(parts), tensor)
        assert len({len(part) for part in parts}) == 1
    assert "upsample_kernel" in waveglow.config["waveglow_config"]  # what was read stays as it is
    for kernel in (512, 1023, 2048):
        waveglow.config["waveglow_config"]["upsample_kernel"] = kernel
        with pytest.raises(UserError, match=f"knows no upsample_kernel of {kernel}: take another form"):
            FORMS["dle"](waveglow)


def test_the_ascend_port_s_convolutions_have_four_dimensions(waveglow):
    made = FORMS["ascend"](waveglow)
    assert made.keys() == {"model", "iteration", "optimizer", "learning_rate"}
    for name, tensor in waveglow.weights.items():
        expected = tensor if tensor.ndim != 3 or name.startswith("upsample.") else tensor[..., None]
        assert torch.equal(made["model"][name], expected)
    assert any(tensor.ndim == 4 for tensor in made["model"].values())


def test_safetensors_tell_configuration_and_iteration(waveglow, tmp_path):
    waveglow.iteration = 4711
    (tmp_path / "out").write_bytes(FORMS["safetensors"](waveglow))
    with safetensors.safe_open(tmp_path / "out", "pt") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"format", "config", "iteration"}
    assert (metadata["format"], json.loads(metadata["iteration"])) == ("pt", 4711)
    assert json.loads(metadata["config"]) == waveglow.config


def test_native_form_is_that_of_a_run_that_is_finetuned(waveglow, tmp_path, monkeypatch):
    waveglow.iteration = 4711
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("real")
    made = to_native(waveglow, "link")
    assert made.keys() == {"model", "config", "iteration", "progress"}
    assert made["iteration"] == made["progress"]["iteration"] == made["progress"]["first_iteration"] == 4711
    assert made["progress"]["finetuned_from"] == str(tmp_path / "real")
    assert made["progress"]["losses"] == []
    del waveglow.weights["upsample.bias"]
    with pytest.raises(UserError, match=r"(?s)link does not fit.*missing: upsample\.bias"):
        to_native(waveglow, "link")


# ---- the program ----


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The program; what it read, was told, checked and wrote."""

    def main(*options, kind="waveglow", lost=""):
        did = SimpleNamespace(written=[], assumed=[], checked=[], hinted=[])
        found = Checkpoint(**(vars(read(DATA / {"waveglow": "waveglow.pt", "tacotron2": "tacotron2_nvidia.pt"}[kind]))))
        found.iteration = 9
        found.weights = {name: tensor for name, tensor in found.weights.items() if name != lost}
        monkeypatch.setattr(module, "open_log", lambda *_, **__: None)
        monkeypatch.setattr(module, "read", lambda path: did.__dict__.update(read=path) or found)
        monkeypatch.setattr(module, "checkpoint_of", lambda text: Path("voices") / text)
        note = lambda name: lambda *given: getattr(did, name).append(given)  # noqa: E731
        monkeypatch.setattr(module, "with_hints", lambda *given: did.hinted.append(given) or given[1])
        monkeypatch.setattr(module, "say_what_is_assumed", note("assumed"))
        monkeypatch.setattr(module.tacotron2.config, "check_symbols", note("checked"))
        monkeypatch.setattr(module, "write", lambda path, contents: did.written.append((path, contents)))
        monkeypatch.setattr(sys, "argv", ["convert", "in", "out", *options])
        module.main()
        return did

    return main


@pytest.mark.parametrize("form", ["native", *FORMS])
def test_each_form_is_written_from_what_was_read(run, form, caplog):
    caplog.set_level("INFO")
    did = run("--to", form, "--sampling_rate=16000")
    assert did.read == Path("voices/in")
    ((source, _, hints, package),) = did.hinted
    assert (source, hints) == (Path("voices/in"), {"data_config": {"sampling_rate": 16000}})
    assert package is module.waveglow.config.Config
    ((path, contents),) = did.written
    assert path == "out"
    of_others = {"iteration", "optimizer", "learning_rate"}
    expected = {
        "native": {"model", "config", "iteration", "progress"}, "nvidia": {"model"} | of_others,
        "dle": {"epoch", "config", "state_dict", "optimizer"}, "ascend": {"model"} | of_others,
    }  # fmt: skip
    assert isinstance(contents, bytes) if form == "safetensors" else contents.keys() == expected[form]
    assert [given[0] for given in did.assumed] == [Path("voices/in")] * (
        form == "native"
    )  # the others do not say what is not known
    assert did.checked == []
    assert caplog.messages[-1] == f"wrote out: WaveGlow at iteration 9, as {form}"


@pytest.mark.parametrize(("form", "checked"), [("native", True), ("nvidia", False)])
def test_symbols_that_are_not_known_have_no_native_form(run, form, checked):
    did = run("--to", form, kind="tacotron2")
    assert did.hinted[0][3] is module.tacotron2.config.Config
    assert [(given[0], given[2]) for given in did.checked] == [(Path("voices/in"), module.NAME_SYMBOLS)] * checked


@pytest.mark.parametrize("form", ["native", *FORMS])
def test_weights_that_are_not_of_the_model_are_written_in_no_form(run, form):
    with pytest.raises(UserError, match=r"(?s)voices/in does not fit.*missing: upsample\.bias"):
        run("--to", form, lost="upsample.bias")


@pytest.mark.parametrize("options", [[], ["--to=onnx"]])
def test_the_form_is_one_of_these(run, capsys, options):
    with pytest.raises(SystemExit) as end:
        run(*options)
    assert end.value.code == 2
    assert "--to" in capsys.readouterr().err


def test_what_is_written_is_written_whole(tmp_path):
    module.write(str(tmp_path / "a"), b"bytes")
    assert (tmp_path / "a").read_bytes() == b"bytes"
    module.write(str(tmp_path / "b"), {"x": torch.ones(2)})
    assert torch.equal(torch.load(tmp_path / "b", weights_only=True)["x"], torch.ones(2))
    for contents in (b"bytes", {"x": torch.ones(2)}):
        with pytest.raises(UserError, match=f"cannot write {tmp_path}: .*Is a directory"):
            module.write(str(tmp_path), contents)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
