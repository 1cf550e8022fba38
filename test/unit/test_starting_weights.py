"""The weights that a finetuning begins with, weight by weight, and the checkpoints that it refuses."""

import logging
from dataclasses import asdict

import pytest
import torch

import tacotron2.config
import waveglow.config
from common.checkpoints.interchange import Checkpoint
from common.config_reading import from_dict
from common.program import UserError
from common.training.finetuning import starting_weights
from conftest import toy_config, toy_tacotron2_config

LETTERS = ["a", "b", "c", "d"]


def configured(symbols=None, ignore=(), data=None, **sizes):
    values = toy_tacotron2_config()
    values["tacotron2_config"] |= sizes
    values["train_config"] = values["train_config"] | {"ignore_layers": list(ignore)}
    values["data_config"] = ({"symbols": symbols} if symbols else {}) | (data or {})
    return from_dict(tacotron2.config.Config, values)


def begun(symbols=LETTERS, ignore=(), data=None, guessed=(), said=None, **sizes):
    """A run of these symbols begun with a checkpoint of LETTERS: its start, the weights of before, its fresh ones."""
    before, config = configured(LETTERS), configured(symbols, ignore, data, **sizes)
    ours, theirs = (tacotron2.config.build_model(each) for each in (config, before))
    origin = Checkpoint("tacotron2", said or asdict(before), theirs.state_dict(), 7, {}, set(guessed))
    fresh = ours.state_dict()
    start = starting_weights("a", origin, config, ours, {name: tensor.clone() for name, tensor in fresh.items()})
    assert start.weights.keys() == fresh.keys()
    return start, theirs.state_dict(), fresh


def assert_comes_from(start, saved, fresh, is_fresh):
    for name, tensor in start.weights.items():
        assert torch.equal(tensor, (fresh if is_fresh(name) else saved)[name]), name


def test_the_same_alphabet_takes_all_and_goes_on():
    start, saved, fresh = begun()
    assert_comes_from(start, saved, fresh, lambda name: False)
    assert start.anew is False


@pytest.mark.parametrize("symbols", [["d", "x", "a"], ["b", "a", "c", "d"], [*LETTERS, "e"]])
def test_another_alphabet_takes_the_rows_it_knows_and_begins_anew(symbols):
    """Also one of as many symbols in another order."""
    start, saved, fresh = begun(symbols)
    assert start.anew is True
    for row, symbol in enumerate(symbols):
        known = (
            saved["embedding.weight"][LETTERS.index(symbol)] if symbol in LETTERS else fresh["embedding.weight"][row]
        )
        assert torch.equal(start.weights["embedding.weight"][row], known)
    rows = {"embedding.weight": start.weights["embedding.weight"]}
    assert_comes_from(start, saved | rows, fresh, lambda name: False)


@pytest.mark.parametrize("layers", [["postnet"], ["embedding"], ["embedding.weight", "decoder.gate_layer"]])
def test_layers_to_ignore_stay_fresh_and_begin_anew(caplog, layers):
    caplog.set_level(logging.INFO)
    start, saved, fresh = begun(ignore=layers)
    assert start.anew is True
    ignored = [name for name in fresh if any(name == layer or name.startswith(f"{layer}.") for layer in layers)]
    assert_comes_from(start, saved, fresh, lambda name: name in ignored)
    assert f"left fresh: {', '.join(layers)}, {len(ignored)} weights" in caplog.text
    assert "another alphabet" not in caplog.text


def test_a_fresh_embedding_goes_with_any_alphabet_and_is_not_sorted(caplog):
    caplog.set_level(logging.INFO)
    start, saved, fresh = begun(["d", "a"], ignore=["embedding"])
    assert_comes_from(start, saved, fresh, lambda name: name == "embedding.weight")
    assert "another alphabet" not in caplog.text


def test_an_alphabet_that_is_not_listed_is_asked_for():
    said = asdict(configured(LETTERS))
    said["data_config"].pop("symbols")  # then it is NVIDIA's, of another length
    with pytest.raises(UserError, match=r"^a has 4 symbols and does not list them: --ignore_layers=embedding\.weight "):
        begun(said=said)
    start, saved, fresh = begun(said=said, ignore=["embedding"])
    assert_comes_from(start, saved, fresh, lambda name: name == "embedding.weight")


def test_sizes_are_free_where_layers_are_ignored_and_then_compared_as_shapes():
    with pytest.raises(UserError, match=r"a was trained with tacotron2_config\.postnet_embedding_dim = 14, the config"):
        begun(postnet_embedding_dim=10)
    start, saved, fresh = begun(ignore=["postnet"], postnet_embedding_dim=10)
    assert_comes_from(start, saved, fresh, lambda name: name.startswith("postnet."))
    with pytest.raises(UserError, match=r"a does not fit the model"):
        begun(ignore=["encoder"], postnet_embedding_dim=10)


def test_rows_of_another_width_are_no_rows_of_another_alphabet():
    with pytest.raises(
        UserError, match=r"(?s)a does not fit the model.*embedding\.weight \[4, 16\], the model's is \[2"
    ):
        begun(["a", "x"], ignore=["postnet"], symbols_embedding_dim=18, encoder_embedding_dim=18)


@pytest.mark.parametrize(
    ("field", "value"),
    [("mask_padding", True), ("p_prenet_dropout", 0.25), ("max_decoder_steps", 50), ("gate_threshold", 0.25)],
)
def test_what_no_weight_shows_may_change(field, value):
    assert begun(**{field: value})[0].anew is False


def test_other_audio_is_refused_but_for_what_the_file_only_makes_likely():
    with pytest.raises(UserError, match=r"a was trained with data_config\.hop_length = 256, the config says 200"):
        begun(data={"hop_length": 200})
    assert begun(data={"hop_length": 200}, guessed={"hop_length"})[0].anew is False
    for ignore in ((), ("postnet",)):
        with pytest.raises(UserError, match=r"data_config\.mel_fmax = 8000\.0, the config says 7000\.0"):
            begun(data={"mel_fmax": 7000.0}, ignore=ignore)


@pytest.mark.parametrize("is_fused", [True, False])
def test_an_ignored_layer_with_weight_norm_stays_fresh_whichever_notation_the_file_has(is_fused):
    values = toy_config()
    values["train_config"] = values["train_config"] | {"ignore_layers": ["WN.0.start"]}
    config = from_dict(waveglow.config.Config, values)
    ours, theirs = (waveglow.config.build_model(config) for _ in range(2))
    fresh, saved = ours.state_dict(), theirs.state_dict()
    weights = dict(saved)
    if is_fused:
        v, g = weights.pop("WN.0.start.weight_v"), weights.pop("WN.0.start.weight_g")
        weights["WN.0.start.weight"] = v * g / v.norm(dim=(1, 2), keepdim=True)
    origin = Checkpoint("waveglow", asdict(config), weights, 7, {})
    start = starting_weights("a", origin, config, ours, fresh)
    assert_comes_from(start, saved, fresh, lambda name: name.startswith("WN.0.start."))
    assert start.anew
