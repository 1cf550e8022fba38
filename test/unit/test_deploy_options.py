"""Options of the deployment in one syntax everywhere, those of Cambricon's sample among them."""

import json
import sys
from pathlib import Path

import pytest
from command_lines import read
from deploy_toys import make

from common.program import UserError
from conftest import ROOT
from tools.deploy.benchmark import perf
from tools.deploy.engines.engine import find_engine
from tools.deploy.gen_model import build, building
from tools.deploy.gen_model.settings import Settings, load_settings
from tools.deploy.infer_python import infer

SAMPLE = {
    "builder_config": {
        "archs": [{"mtp_372": [6, 8]}],
        "graph_shape_mutable": True,
        "precision_config": {"precision_mode": "force_float16"},
        "debug_config": {"fusion_enable": True},
        "opt_config": {"type64to32_conversion": True, "conv_scale_fold": True, "clustering_launch_enable": False},
    }
}
"The form of data/jsons/builder_config.json in the sample."


@pytest.mark.parametrize("option", ["--bs", "-bs", "--batch-size"])
@pytest.mark.parametrize("module", [build, infer, perf])
def test_batches_are_written_the_same_way_everywhere(monkeypatch, module, option):
    for given in ([option, "1,4,8"], [option, "1", "4", "8"], [option, "1 4 8"], [f"{option}=1,4,8"]):
        assert read(monkeypatch, module, *given).bs == [1, 4, 8]


def test_engines_for_one_batch_are_for_no_other(monkeypatch):
    assert read(monkeypatch, build, "--bs=8").bs == [8, 8, 8]


@pytest.mark.parametrize("given", [["--devices", "0 1"], ["--devices=0,1"], ["--devices", "0", "1"], ["--device=0 1"]])
def test_devices_with_blanks_or_commas(monkeypatch, given):
    assert read(monkeypatch, infer, *given).devices == [0, 1]


def test_options_of_the_sample(monkeypatch):
    given = ["-il", "64", "--num-iters", "7", "--warmup-iters=2", "-s", "0.5", "--quant_mode", "qint8_mixed_float16"]
    args = read(monkeypatch, infer, *given)
    assert (args.il, args.num_iters, args.warmup_iters, args.sigma, args.quant_mode) == (64, 7, 2, 0.5, "int8")
    assert read(monkeypatch, build, "--quant_mode=qint8_mixed_float16").quant_mode == "int8"
    assert read(monkeypatch, perf, "--quant_modes", "qint8_mixed_float16").quant_modes == ["int8"]


def test_what_nobody_asks_for_is_as_documented(monkeypatch):
    """One sentence of 128 characters on the first card, 10 times after 3 that do not count."""
    args = read(monkeypatch, infer)
    assert (args.il, args.num_iters, args.warmup_iters, args.seed, args.devices) == (128, 10, 3, 1234, [0])
    assert (args.sigma, args.engine, args.bs, args.no_waveglow, args.all) == (None, "onnxruntime", [1], False, False)
    args = read(monkeypatch, perf)
    assert not (args.random or args.voice or args.opset)


@pytest.mark.parametrize("module", [build, infer, perf])
def test_models_are_where_env_sh_says(monkeypatch, module):
    monkeypatch.setenv("MODEL_PATH", "/my/models")
    assert read(monkeypatch, module).models_dir == Path("/my/models")
    assert read(monkeypatch, module, "--models_dir=here").models_dir == Path("here")
    monkeypatch.delenv("MODEL_PATH")  # env.sh is not needed
    assert read(monkeypatch, module).models_dir == ROOT / "tools/deploy/models"


LARGEST = 2**31 - 1


@pytest.mark.parametrize(
    ("option", "smallest", "largest"),
    [
        ("il", 1, LARGEST), ("warmup_iters", 0, LARGEST), ("num_iters", 1, LARGEST), ("seed", 0, LARGEST),
        ("sigma", 0, 1.5),
    ],
)  # fmt: skip
def test_numbers_are_taken_within_their_limits(monkeypatch, capsys, option, smallest, largest):
    for value in (smallest, largest):
        taken = getattr(read(monkeypatch, infer, f"--{option}={value}"), option)
        assert taken == value
    for value in (smallest - 1, LARGEST + 1):
        with pytest.raises(SystemExit) as end:
            read(monkeypatch, infer, f"--{option}={value}")
        assert end.value.code == 2
        assert f"--{option} must be at least {smallest}" in capsys.readouterr().err


def test_a_batch_is_of_1_to_1024_clips(monkeypatch, capsys):
    assert read(monkeypatch, infer, "--bs", "1", "1024").bs == [1, 1024]
    for batch in (0, 1025):
        with pytest.raises(SystemExit) as end:
            read(monkeypatch, infer, "--bs", "8", str(batch))
        assert end.value.code == 2
        assert f"--bs is {batch}, must be 1 to 1024" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["devices", "bs"])
def test_each_card_and_batch_is_named_once(monkeypatch, capsys, option):
    assert getattr(read(monkeypatch, infer, f"--{option}=2,1"), option) == [2, 1]
    with pytest.raises(SystemExit):
        read(monkeypatch, infer, f"--{option}=2,1,2")
    assert "name each once" in capsys.readouterr().err


def test_the_samples_builder_config_is_magicminds(tmp_path):
    (tmp_path / "builder_config.json").write_text(json.dumps(SAMPLE))
    settings = load_settings(tmp_path / "builder_config.json")
    assert settings.magicmind.builder_config == SAMPLE["builder_config"]
    assert settings.ranges == load_settings(None).ranges
    # What is asked for on the command line overrides it.
    request = building.Build("postnet", None, None, None, "force_float32", {}, settings.magicmind.options())
    engine = sys.modules[find_engine("magicmind").__module__]
    request.signature = type("Signature", (), {"inputs": {}})
    merged = {}
    for part in engine.configuration(request, fake_ranges=False):
        merged |= part
    assert merged["precision_config"] == {"precision_mode": "force_float32"}
    assert merged["debug_config"] == {"fusion_enable": True}


def test_the_samples_builder_config_goes_before_magicminds_own_and_leaves_the_rest(tmp_path):
    config = {"builder_config": {"a": 1, "b": 2}, "magicmind": {"builder_config": {"b": 3, "c": 4}}}
    (tmp_path / "both.json").write_text(json.dumps(config))
    assert load_settings(tmp_path / "both.json").magicmind.builder_config == {"a": 1, "b": 2, "c": 4}


def test_an_engine_has_no_options_of_another(tmp_path):
    for name, other in (("torch", "spinning"), ("onnxruntime", "builder_config"), ("magicmind", "spinning")):
        (tmp_path / "a.json").write_text(json.dumps({name: {other: {}}}))
        with pytest.raises(UserError, match=f"{name} has the unknown key '{other}'"):
            load_settings(tmp_path / "a.json")
    assert make(tmp_path, "torch").options == {}


def test_files_are_named_by_their_whole_path_for_a_command_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    order = building.Order(
        "onnxruntime",
        "int8",
        Path("models"),
        Path("out"),
        load_settings(None),
        {"postnet": Path("p.onnx")},
        Path("a.json"),
    )
    assert order.naming() == [f"--postnet={tmp_path}/p.onnx", f"--json={tmp_path}/a.json"]


def test_pytorch_decodes_frame_by_frame_the_others_in_a_graph():
    """By default as by configs/deploy.json."""
    for settings in (Settings(), load_settings(None)):
        decoders = {name: settings.engine(name).graphs()[1] for name in ("onnxruntime", "torch", "magicmind")}
        assert decoders == {"onnxruntime": "decoder", "torch": "decoder_iter", "magicmind": "decoder"}
    assert Settings().onnxruntime == load_settings(None).onnxruntime


def test_a_graph_that_is_named_says_how_to_decode(tmp_path):
    settings = load_settings(None)
    for name in ("decoder", "decoder_iter"):
        order = building.Order("magicmind", "force_float32", tmp_path, tmp_path, settings, {name: tmp_path / "x.onnx"})
        assert order.of_engine().graphs() == ["encoder", name, "postnet", "waveglow"]
    order.graphs["decoder"] = tmp_path / "y.onnx"  # beside decoder_iter: neither says it
    order.settings.magicmind.decoder = "decoder_iter"
    assert order.of_engine().graphs() == ["encoder", "decoder_iter", "postnet", "waveglow"]
