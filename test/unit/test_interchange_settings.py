"""What a checkpoint tells beside its weights: configuration, steps, how text is read; and which word counts most."""

import argparse

import pytest
import torch

import tacotron2.config
import waveglow.config
from common.checkpoints.interchange import read
from common.checkpoints.sizes import waveglow_sizes
from common.config_reading import from_dict
from common.program import UserError
from conftest import toy_config, toy_tacotron2_config
from tools.convert_checkpoint import glow_importable, glow_module

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


@pytest.fixture(scope="module")
def vocoder():
    """The weights of a small WaveGlow; n_early_every is 4, and its two flows do not show it."""
    return waveglow.config.build_model(from_dict(waveglow.config.Config, toy_config())).state_dict()


@pytest.fixture(scope="module")
def speaker():
    """The weights of a small Tacotron2."""
    config = from_dict(tacotron2.config.Config, toy_tacotron2_config())
    return tacotron2.config.build_model(config).state_dict()


@pytest.fixture
def read_saved(tmp_path):
    def read_saved(contents):
        torch.save(contents, tmp_path / "a.pt")
        return read(tmp_path / "a.pt")

    return read_saved


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize("name", ["config", "hparams", "args"])
@pytest.mark.parametrize("section", [None, "waveglow_config", "train_config"])
def test_options_are_found_under_each_name_in_sections_and_without(read_saved, vocoder, name, as_object, section):
    """As a dict or as what argparse gives."""
    options = {"n_early_every": 3, "sampling_rate": 16000, "WN_config": {"n_layers": 7}}
    options = {section: options} if section else options
    saved = {"state_dict": vocoder, name: argparse.Namespace(**options) if as_object else options}
    config = read_saved(saved).config
    assert config["waveglow_config"]["n_early_every"] == 3
    assert config["waveglow_config"]["WN_config"] == {"n_layers": 7, "n_channels": 8, "kernel_size": 3}
    assert config["data_config"] == {"hop_length": 256, "sampling_rate": 16000}


def test_of_several_words_the_first_counts(read_saved, vocoder):
    """config before hparams before args, what stands alone before what is in a section; none of it must be there."""
    words = {"config": 5, "hparams": 6, "args": 7}
    while words:
        first = next(iter(words.values()))
        saved = {name: {"n_early_every": word} for name, word in reversed(words.items())}
        assert read_saved(saved | {"model": vocoder}).config["waveglow_config"]["n_early_every"] == first
        words.pop(next(iter(words)))
    for options in (
        {"a_config": {"n_early_every": 5}, "n_early_every": 6},
        {"n_early_every": 6, "a_config": {"n_early_every": 5}},
    ):
        assert read_saved({"model": vocoder, "args": options}).config["waveglow_config"]["n_early_every"] == 6
    inner = {"n_layers": 5, "WN_config": {"n_layers": 6}}
    assert read_saved({"model": vocoder, "args": inner}).config["waveglow_config"]["WN_config"]["n_layers"] == 6
    for nothing in ({}, {"config": None}, {"config": [1], "args": 3}, {"config": {"a_config": None}}):
        assert read_saved({"model": vocoder} | nothing).config["waveglow_config"]["n_early_every"] == 4


def test_options_count_more_than_the_attributes_of_a_module(tmp_path, vocoder):
    sizes = toy_config()["waveglow_config"] | {"n_group": 8, "n_early_every": 7, "n_early_size": 2}
    sizes["WN_config"] = sizes["WN_config"] | {"kernel_size": 3}
    model = glow_module(vocoder, {"waveglow_config": sizes, "data_config": {"hop_length": 128}})
    for options, every, hop in (({}, 7, 128), ({"n_early_every": 9, "hop_length": 64}, 9, 64)):
        with glow_importable():
            torch.save({"model": model, "config": options}, tmp_path / "a.pt")
        found = read(tmp_path / "a.pt")
        assert (found.config["waveglow_config"]["n_early_every"], found.config["data_config"]["hop_length"]) == (
            every,
            hop,
        )
        assert found.guessed == set()


def test_a_size_is_a_whole_number_and_a_property_of_the_sound_a_number(read_saved, vocoder):
    for word in (True, 3.5, "3", None, [3]):
        config = read_saved({"model": vocoder, "config": {"n_early_every": word, "sampling_rate": word}}).config
        assert config["waveglow_config"]["n_early_every"] == 4
        assert config["data_config"] == {"hop_length": 256} | ({"sampling_rate": word} if word in (True, 3.5) else {})


def test_all_that_makes_the_sound_is_taken_and_nothing_else(read_saved, vocoder):
    audio = {
        "sampling_rate": 16000, "filter_length": 800, "hop_length": 200, "win_length": 640, "mel_fmin": 20.5,
        "mel_fmax": 7000.0,
    }  # fmt: skip
    found = read_saved({"model": vocoder, "data_config": {}, "config": {"data_config": audio | {"segment_length": 9}}})
    assert found.config["data_config"] == audio


@pytest.mark.parametrize(("iteration", "found"), [(7, 7), (0, 0), (7.0, 0), ("7", 0), (None, 0), (torch.ones(1), 0)])
def test_the_steps_are_a_whole_number_or_unknown(read_saved, vocoder, iteration, found):
    assert read_saved({"model": vocoder, "iteration": iteration}).iteration == found
    assert read_saved({"model": vocoder}).iteration == 0


def test_a_native_file_is_taken_at_its_word(read_saved, vocoder):
    """Its configuration as it stands, its progress; of others neither counts."""
    config, progress = {"mine": 1, "waveglow_config": {"n_early_every": 9}}, {"epoch": 3}
    native = {"model": vocoder, "config": config, "iteration": 7, "progress": progress}
    found = read_saved(native)
    assert (found.kind, found.config, found.iteration, found.progress) == ("waveglow", config, 7, progress)
    assert found.guessed == set()
    for missing in ("config", "iteration", "progress"):
        other = read_saved({name: value for name, value in native.items() if name != missing})
        assert other.progress == {} and other.config.keys() == {"waveglow_config", "data_config"}
        assert other.config["waveglow_config"]["n_early_every"] == (4 if missing == "config" else 9)
    with pytest.raises(UserError, match=r"a\.pt: its progress is 5, must be an object"):
        read_saved(native | {"progress": 5})


def test_a_guessed_hop_is_said_to_be_one(read_saved, vocoder, speaker):
    """Only WaveGlow's upsampling hints at it."""
    assert read_saved({"model": vocoder}).guessed == {"hop_length"}
    assert read_saved({"model": vocoder, "config": {"hop_length": 256}}).guessed == set()
    assert read_saved({"model": vocoder, "config": {"sampling_rate": 256}}).guessed == {"hop_length"}
    assert read_saved({"model": speaker}).guessed == set()


READING = {"text_cleaners": ["basic_cleaners"], "symbols": ["a", "b"], "dictionary": "cmudict"}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (READING, READING),
        ({"dictionary": "words.dict", "symbols": []}, {"dictionary": "words.dict", "symbols": []}),
        ({"dictionary": "/home/somebody/words.dict"}, {}),  # another machine's
        ({"dictionary": "here/words.dict"}, {}),
        ({"dictionary": None, "symbols": "ab", "text_cleaners": ("a",)}, {}),
        ({"dictionary": 5, "symbols": ["a", 1], "text_cleaners": [None]}, {}),
    ],
)
def test_how_text_is_read_is_taken_where_it_means_something_here(read_saved, speaker, said, found):
    data = read_saved({"state_dict": speaker, "hparams": said | {"sampling_rate": 16000}}).config["data_config"]
    assert data == found | {"sampling_rate": 16000}


def test_what_no_shape_of_tacotron2_shows_is_taken_from_the_options(read_saved, speaker):
    hidden = {
        "mask_padding": True, "p_prenet_dropout": 0.25, "p_attention_dropout": 0.5, "p_decoder_dropout": 0.75,
        "p_frame_dropout": 0.125, "max_decoder_steps": 77, "gate_threshold": 0.625,
    }  # fmt: skip
    shown = read_saved({"state_dict": speaker}).config["tacotron2_config"]
    assert not shown.keys() & hidden.keys()
    said = hidden | {"learning_rate": 1e-3, "prenet_dim": 5}
    assert read_saved({"state_dict": speaker, "args": said}).config["tacotron2_config"] == shown | hidden | {
        "prenet_dim": 5
    }
    assert read_saved({"state_dict": speaker, "args": {"gate_threshold": "0.6"}}).config["tacotron2_config"] == shown


def test_what_no_shape_shows_is_taken_from_a_pickled_module_as_well(read_saved):
    """Numbers of either kind, of it and of all modules in it."""
    values = toy_tacotron2_config()
    hidden = {"gate_threshold": 0.625, "max_decoder_steps": 77, "p_attention_dropout": 0.5}
    values["tacotron2_config"] |= hidden
    config = from_dict(tacotron2.config.Config, values)
    found = read_saved({"model": tacotron2.config.build_model(config)}).config["tacotron2_config"]
    assert {name: found[name] for name in hidden} == hidden


SIZES = {
    "n_mel_channels": 6, "n_symbols": 11, "symbols_embedding_dim": 16, "encoder_kernel_size": 3,
    "encoder_n_convolutions": 2, "encoder_embedding_dim": 16, "n_frames_per_step": 2, "decoder_rnn_dim": 20,
    "prenet_dim": 12, "attention_rnn_dim": 18, "attention_dim": 10, "attention_location_n_filters": 4,
    "attention_location_kernel_size": 7, "postnet_embedding_dim": 14, "postnet_kernel_size": 5,
    "postnet_n_convolutions": 4,
}  # fmt: skip


def test_every_size_of_tacotron2_is_read_off_the_weights(read_saved):
    symbols = list("abcdefghijk")
    config = from_dict(tacotron2.config.Config, {"tacotron2_config": SIZES, "data_config": {"symbols": symbols}})
    assert read_saved(tacotron2.config.build_model(config).state_dict()).config == {
        "tacotron2_config": SIZES, "data_config": {}
    }  # fmt: skip


@pytest.mark.parametrize(("every", "size"), [(1, 2), (2, 4), (3, 2), (4, 6)])
def test_early_exits_are_seen_in_the_weights(every, size):
    values = toy_config()
    values["waveglow_config"] |= {"n_flows": 4, "n_group": 16, "n_early_every": every, "n_early_size": size}
    model = waveglow.config.build_model(from_dict(waveglow.config.Config, values))
    found = waveglow_sizes(model.state_dict())
    assert {name: found[name] for name in ("n_flows", "n_group")} == {"n_flows": 4, "n_group": 16}
    if every < 4:  # with 4 nothing leaves early, and any values say so
        assert (found["n_early_every"], found["n_early_size"]) == (every, size)
    else:
        assert found["n_early_every"] >= 4
