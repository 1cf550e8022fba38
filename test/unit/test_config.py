"""Configuration files: NVIDIA's load, mistakes are named."""

import json
from dataclasses import dataclass, fields, is_dataclass
from typing import get_type_hints

import pytest

import tacotron2.config
import waveglow.config
from common import options
from common.config import TrainConfig, parse_loss_scale
from common.config_fields import explanations, may_change
from common.config_reading import load_config
from common.options import add_training_options
from common.program import Parser, UserError
from conftest import ROOT, write_config
from tacotron2.config import Config as Tacotron2Config
from tacotron2.config import Tacotron2TrainConfig
from waveglow.config import Config, WaveGlowTrainConfig, build_mel, build_model

NVIDIA = {
    "train_config": {
        "fp16_run": True, "output_directory": "checkpoints", "epochs": 100000, "learning_rate": 1e-4, "sigma": 1.0,
        "iters_per_checkpoint": 2000, "batch_size": 12, "seed": 1234, "checkpoint_path": "", "with_tensorboard": False,
    },
    "data_config": {
        "training_files": "train_files.txt", "segment_length": 16000, "sampling_rate": 22050, "filter_length": 1024,
        "hop_length": 256, "win_length": 1024, "mel_fmin": 0.0, "mel_fmax": 8000.0,
    },
    "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321"},
    "waveglow_config": {
        "n_mel_channels": 80, "n_flows": 12, "n_group": 8, "n_early_every": 4, "n_early_size": 2,
        "WN_config": {"n_layers": 8, "n_channels": 256, "kernel_size": 3},
    },
}  # fmt: skip


def test_nvidias_file_loads_as_it_is(tmp_path):
    config = load_config(write_config(tmp_path / "c.json", NVIDIA), Config)
    assert config.train_config.batch_size == 12
    assert config.train_config.learning_rate == 1e-4
    assert config.data_config.training_files == "train_files.txt"
    assert config.waveglow_config.WN_config.n_channels == 256


def test_shipped_file_is_the_ascend_ports_run():
    config = load_config(ROOT / "configs/waveglow.json", Config)
    train, model = config.train_config, config.waveglow_config
    assert (train.batch_size, train.learning_rate, train.sigma, train.epochs) == (24, 2e-4, 1.0, 313)
    assert (model.n_flows, model.WN_config.n_channels, config.data_config.segment_length) == (12, 256, 16000)
    assert (train.fp16_run, train.loss_scale) == (True, 128)


@pytest.mark.parametrize("name", ["waveglow.json", "waveglow_demo.json", "waveglow_small.json"])
def test_shipped_files_build_a_model(name):
    config = load_config(ROOT / "configs" / name, Config)
    assert build_mel(config).hop_length == build_model(config).hop_length


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train_config", "batch_sise", 4, "'batch_sise', perhaps 'batch_size'"),
        ("train_config", "zzz", 4, "unknown key 'zzz'; known are"),
        ("train_config", "batch_size", "4", "batch_size is '4', must be int"),
        ("train_config", "batch_size", True, "batch_size is True, must be int"),
        ("train_config", "batch_size", 4.5, "batch_size is 4.5, must be int"),
        ("train_config", "batch_size", 0, "batch_size is 0, must be above 0"),
        ("train_config", "fp16_run", "false", "fp16_run is 'false', must be bool"),
        ("train_config", "learning_rate", -1, "learning_rate is -1"),
        ("train_config", "learning_rate", float("nan"), "learning_rate is nan, must be above 0"),
        ("train_config", "grad_clip", float("nan"), "grad_clip is nan, must be 0 or above"),
        ("train_config", "grad_clip", float("inf"), "grad_clip is inf, must be at most"),
        ("train_config", "ema_decay", float("nan"), "ema_decay is nan, must be 0 or above and below 1"),
        ("data_config", "mel_fmin", float("nan"), "mel_fmin nan and mel_fmax 8000 must lie in this order"),
        ("train_config", "amp", "O3", "amp is 'O3'"),
        ("train_config", "loss_scale", "big", "loss_scale is 'big'"),
        ("train_config", "workers", -1, "workers is -1"),
        ("data_config", "hop_length", 0, "hop_length is 0"),
        ("data_config", "win_length", 2048, "win_length 2048 is above filter_length"),
        ("data_config", "mel_fmax", 12000.0, "between 0 and half the sampling_rate, 11025"),
        ("data_config", "segment_length", 100, "segment_length 100 is below"),
        ("waveglow_config", "n_group", None, "n_group is None, must be int"),
        ("waveglow_config", "WN_config", 3, "WN_config must be an object"),
        ("waveglow_config", "WN_config", {"kernel_size": 4}, "kernel_size is 4, must be odd"),
    ],
)
def test_mistakes_are_named(tmp_path, section, key, value, message):
    path = write_config(tmp_path / "c.json", NVIDIA | {section: NVIDIA[section] | {key: value}})
    with pytest.raises(UserError) as error:
        load_config(path, Config)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("segment_length", 1024), ("win_length", 1024), ("mel_fmax", 11025.0)])
def test_the_limit_itself_is_allowed(tmp_path, key, value):
    path = write_config(tmp_path / "c.json", NVIDIA | {"data_config": NVIDIA["data_config"] | {key: value}})
    assert getattr(load_config(path, Config).data_config, key) == value


def test_a_hop_beyond_the_kernel_is_refused(tmp_path):
    values = NVIDIA | {"data_config": NVIDIA["data_config"] | {"hop_length": 1020}}
    with pytest.raises(UserError, match="upsample_kernel 1024 must be at least 1027 with hop_length 1020"):
        build_model(load_config(write_config(tmp_path / "c.json", values), Config))


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "is not JSON"), ("[1]", "must be an object"), ("{", "is not JSON"), ('{"a": }', "is not JSON")],
)
def test_what_is_no_config(tmp_path, content, says):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"c\.json.*{says}"):
        load_config(path, Config)
    with pytest.raises(UserError, match="cannot read"):
        load_config(tmp_path / "missing.json", Config)


def test_a_file_that_is_not_named_is_not_the_configuration_s_folder(tmp_path):
    path = write_config(tmp_path / "c.json", {"data_config": {"training_files": ""}})
    assert load_config(path, Config).data_config.training_files == ""


def test_a_byte_order_mark_does_not_matter(tmp_path):
    path = tmp_path / "c.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(NVIDIA).encode())
    assert load_config(path, Config).train_config.batch_size == 12


def test_loss_scale():
    assert parse_loss_scale("dynamic") == "dynamic"
    assert parse_loss_scale("128") == TrainConfig(loss_scale=128).loss_scale == 128.0
    for wrong in ("0", "-1", "inf", "nan", "many"):
        with pytest.raises(UserError, match=f"loss_scale is '{wrong}'"):
            parse_loss_scale(wrong)
    for wrong in (10**400, -(10**400), 0, -0.5, float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"loss_scale is .*, must be .dynamic. or a positive number"):
            parse_loss_scale(wrong)
    assert parse_loss_scale(1e-30) == 1e-30


def sections_of(kind):
    """The dataclass and all that its fields are made of."""
    yield kind
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint):
            yield from sections_of(hint)


@dataclass
class Base:
    """No explanation of a field."""

    first: int = 1
    "Of the base."
    second: int = 2
    third: int = 3
    """On two
    lines."""


@dataclass
class Extended(Base):
    second: int = 4
    "Of the extended."
    fourth: int = 5

    def method(self) -> None:
        """Nor is this one."""


def test_an_explanation_is_the_string_below_its_field():
    base = {"first": "Of the base.", "third": "On two lines."}
    assert explanations(Base) == base
    assert explanations(Extended) == base | {"second": "Of the extended."}


@pytest.mark.parametrize("kind", [Config, Tacotron2Config])
def test_every_field_is_explained_at_the_field(kind):
    for section in sections_of(kind):
        if section is not kind:
            assert explanations(section).keys() == {field.name for field in fields(section)}, section


def test_an_option_says_what_its_field_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    parser = Parser("", "")
    add_training_options(parser, "configs/tacotron2.json", Tacotron2Config)
    said = parser.format_help()
    assert f"{explanations(TrainConfig)['hang_limit']} [1800]" in said
    assert "Clips in a batch of one process. [64]" in said  # Tacotron2's
    assert parser.parse_args(["--keep_optimizer", "--amp=O1", "--learning_rate=1"]).learning_rate == 1.0
    with pytest.raises(SystemExit):
        parser.parse_args(["--amp="])


@pytest.mark.parametrize(("kind", "has"), [(Tacotron2Config, True), (Config, False)])
def test_a_field_of_one_model_is_an_option_of_its_program(monkeypatch, kind, has):
    monkeypatch.setitem(options.TRAINING_OPTIONS, "guided_attention", "X")
    name = {Tacotron2Config: "tacotron2", Config: "waveglow"}[kind]
    parser = Parser("", "")
    add_training_options(parser, str(ROOT / f"configs/{name}.json"), kind)
    args = parser.parse_args([])
    assert hasattr(args, "guided_attention") == has
    args.data_path, args.guided_attention = "", 0.25
    assert getattr(options.configure(args, kind).train_config, "guided_attention", None) == (0.25 if has else None)


FIXED = {"weight_decay", "grad_clip", "ema_decay", "sigma", "seed", "fp16_run", "amp", "loss_scale"}
AUDIO = {"sampling_rate", "filter_length", "hop_length", "win_length", "mel_fmin", "mel_fmax"}


@pytest.mark.parametrize(
    ("kind", "fixed"),
    [
        (WaveGlowTrainConfig, FIXED | {"interpolating_start", "fixed_upsampling"}),
        (Tacotron2TrainConfig, FIXED | {"guided_attention"}),
        (waveglow.config.DataConfig, AUDIO | {"mels_path", "segment_length"}),
        (tacotron2.config.DataConfig, AUDIO | {"text_cleaners", "symbols", "dictionary"}),
        (waveglow.config.WaveGlowConfig, None),
        (tacotron2.config.Tacotron2Config, None),
    ],
)
def test_what_may_not_change_when_a_run_is_resumed(kind, fixed):
    """What the numbers depend on: the model, the audio, the optimizer but for its steps."""
    names = {field.name for field in fields(kind)}
    assert names - may_change(kind) == (names if fixed is None else fixed)
