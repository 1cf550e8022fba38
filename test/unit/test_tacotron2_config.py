"""Tacotron2's configuration: NVIDIA's hyperparameters, and mistakes are named."""

import json
from dataclasses import asdict

import pytest
import torch
from tacotron2_reference import reference

import tacotron2.config
import waveglow.config
from checkpoint_files import DATA
from common.audio import MelSpectrogram
from common.checkpoints.interchange import load_weights
from common.config_reading import from_dict, load_config
from common.program import UserError
from conftest import ROOT, write_config
from tacotron2.config import Config, DataConfig, Tacotron2Config, build_mel, build_model, check_symbols
from tacotron2.text.symbols import SYMBOLS

SHIPPED = ROOT / "configs/tacotron2.json"
NVIDIA = {
    "train_config": {
        "epochs": 500, "iters_per_checkpoint": 1000, "seed": 1234, "fp16_run": False, "learning_rate": 1e-3,
        "weight_decay": 1e-6, "grad_clip": 1.0, "batch_size": 64,
    },
    "data_config": {
        "text_cleaners": ["english_cleaners"], "sampling_rate": 22050, "filter_length": 1024, "hop_length": 256,
        "win_length": 1024, "mel_fmin": 0.0, "mel_fmax": 8000.0,
    },
    "tacotron2_config": {
        "n_mel_channels": 80, "n_symbols": 148, "symbols_embedding_dim": 512, "encoder_kernel_size": 5,
        "encoder_n_convolutions": 3, "encoder_embedding_dim": 512, "n_frames_per_step": 1, "decoder_rnn_dim": 1024,
        "prenet_dim": 256, "max_decoder_steps": 1000, "gate_threshold": 0.5, "p_attention_dropout": 0.1,
        "p_decoder_dropout": 0.1, "attention_rnn_dim": 1024, "attention_dim": 128, "attention_location_n_filters": 32,
        "attention_location_kernel_size": 31, "postnet_embedding_dim": 512, "postnet_kernel_size": 5,
        "postnet_n_convolutions": 5, "mask_padding": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("config", [Config(), load_config(SHIPPED, Config)], ids=["defaults", "tacotron2.json"])
def test_it_is_nvidias(config):
    for section, values in NVIDIA.items():
        ours = vars(getattr(config, section))
        assert {name: ours[name] for name in values} == values
    assert config.tacotron2_config.p_prenet_dropout == 0.5
    assert config.train_config.guided_attention == 0
    assert config.tacotron2_config.n_symbols == len(SYMBOLS)


def test_the_model_has_no_hyperparameter_that_nvidias_has_not():
    assert asdict(Tacotron2Config()).keys() - reference()["config"].keys() == {
        "p_prenet_dropout", "p_frame_dropout",
    }  # fmt: skip


def test_the_shipped_file_says_everything_about_the_model():
    assert json.loads(SHIPPED.read_text())["tacotron2_config"].keys() == asdict(Tacotron2Config()).keys()


@pytest.mark.parametrize("name", ["tacotron2.json", "tacotron2_demo.json", "tacotron2_small.json"])
def test_shipped_files_build_a_model(name):
    config = load_config(ROOT / "configs" / name, Config)
    model = build_model(config)
    assert build_mel(config).filters.shape[0] == model.decoder.n_mel_channels == 80
    parameters = sum(parameter.numel() for parameter in model.parameters())
    limits = {"tacotron2.json": 28_193_153, "tacotron2_small.json": 7.1e6, "tacotron2_demo.json": 3e6}
    assert parameters <= limits[name]
    assert name != "tacotron2.json" or parameters == limits[name]


@pytest.mark.parametrize("form", ["tacotron2_nvidia.pt", "tacotron2_dle.pt"])
def test_what_a_checkpoint_tells_is_a_configuration(form, tmp_path):
    config, weights = load_weights(DATA / form)
    model = build_model(load_config(write_config(tmp_path / "c.json", config), Config))
    assert model.state_dict().keys() == weights.keys()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train_config", "weight_decay", -1, "weight_decay is -1, must be 0 or above"),
        ("train_config", "guided_attention", float("nan"), "guided_attention is nan"),
        ("train_config", "weight_dekay", 1.0, "perhaps 'weight_decay'"),
        ("data_config", "text_cleaners", "english_cleaners", "text_cleaners is 'english_cleaners', must be list"),
        ("data_config", "text_cleaners", [1], "must be a list of names"),
        ("data_config", "text_cleaners", ["english"], "'english'"),
        ("tacotron2_config", "prenet_dim", 0, "prenet_dim is 0, must be above 0"),
        ("tacotron2_config", "n_frames_per_step", 0, "n_frames_per_step is 0, must be above 0"),
        ("tacotron2_config", "n_frames_per_step", 1.5, "n_frames_per_step is 1.5, must be int"),
        ("tacotron2_config", "p_prenet_dropout", 1.0, "p_prenet_dropout is 1.0, must be 0 or above and below 1"),
        ("tacotron2_config", "p_decoder_dropout", -0.1, "p_decoder_dropout is -0.1"),
        ("tacotron2_config", "encoder_kernel_size", 4, "encoder_kernel_size is 4, must be odd"),
        ("tacotron2_config", "attention_location_kernel_size", 30, "attention_location_kernel_size is 30, must be odd"),
        ("tacotron2_config", "mask_padding", 1, "mask_padding is 1, must be bool"),
    ],
)
def test_mistakes_are_named(tmp_path, section, key, value, message):
    path = write_config(tmp_path / "c.json", NVIDIA | {section: NVIDIA[section] | {key: value}})
    with pytest.raises(UserError) as error:
        load_config(path, Config)
    assert message in str(error.value)


def test_sizes_that_do_not_fit_are_refused(tmp_path):
    values = NVIDIA | {"tacotron2_config": NVIDIA["tacotron2_config"] | {"postnet_n_convolutions": 1}}
    with pytest.raises(UserError, match="tacotron2_config: postnet_n_convolutions is 1, must be 2 or above"):
        build_model(load_config(write_config(tmp_path / "c.json", values), Config))


@pytest.mark.parametrize(
    ("symbols", "rows", "said"),
    [
        (["_", "a", "b"], 3, ""),
        (["_", "a", "b"], 4, "it has 4 symbols, and the list of symbols has 3: do this"),
        (["_", "a", "b"], 2, "it has 2 symbols, and the list of symbols has 3: do this"),
        (SYMBOLS, 148, ""),
        (SYMBOLS, 149, "it has 149 symbols, and does not list them: do this"),
        (SYMBOLS, 147, "it has 147 symbols, and does not list them: do this"),
    ],
)
def test_a_model_has_a_row_for_each_symbol(symbols, rows, said):
    config = Config(data_config=DataConfig(symbols=list(symbols)), tacotron2_config=Tacotron2Config(n_symbols=rows))
    try:
        check_symbols("it", config, "do this")
    except UserError as error:
        assert str(error) == said
    else:
        assert not said


@pytest.mark.parametrize("module", [tacotron2.config, waveglow.config])
def test_the_spectrogram_is_that_of_the_configuration(module):
    audio = {
        "sampling_rate": 16000, "filter_length": 512, "hop_length": 200, "win_length": 400, "mel_fmin": 50.0,
        "mel_fmax": 7000.0,
    }  # fmt: skip
    sizes = {f"{module.__name__.partition('.')[0]}_config": {"n_mel_channels": 20}}
    mel = module.build_mel(from_dict(module.Config, {"data_config": audio} | sizes))
    ours, same = torch.randn(1, 3000), MelSpectrogram(**audio, n_mel_channels=20)
    assert torch.equal(mel(ours), same(ours)) and len(mel(ours)[0]) == 20
    assert {name: getattr(mel, name) for name in [*audio][:4]} == dict([*audio.items()][:4])
