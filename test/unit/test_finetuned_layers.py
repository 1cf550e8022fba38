"""Which layers finetuning leaves fresh, by their names, and which checkpoints are those of another model."""

import copy

import pytest
import torch

from common.checkpoints.interchange import AUDIO
from common.program import UserError
from common.training.finetuning import check_same_model, find_layers, without_norm

NAMES = [
    "WN.1.start.weight_g", "WN.1.start.weight_v", "WN.1.start.bias", "WN.10.start.weight_v", "upsample.weight",
    "upsample.bias", "embedding.weight", "postnet.0.1.running_mean",
]  # fmt: skip
FRESH = dict.fromkeys(NAMES, torch.zeros(1))


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([], []),
        (["WN.1"], NAMES[:3]),
        (["WN"], NAMES[:4]),
        (["WN.1.start.weight"], NAMES[:2]),  # of which weight norm makes two
        (["WN.1.start.weight_g"], NAMES[:1]),
        (["upsample.bias", "embedding.weight"], ["upsample.bias", "embedding.weight"]),
        (["upsample", "upsample.weight", "upsample"], ["upsample.weight", "upsample.bias"]),  # each once
        (["postnet.0.1"], ["postnet.0.1.running_mean"]),
    ],
)
def test_a_layer_is_a_module_or_a_weight(layers, found):
    assert find_layers(layers, FRESH) == found


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("WN.1.strat", "there is no layer 'WN.1.strat', perhaps WN.1.start"),
        ("upsampel", "no layer 'upsampel', perhaps upsample"),
        ("upsam", "no layer 'upsam'"),  # a part of a name is none
        ("xyz", "no layer 'xyz', there are WN, embedding, postnet, upsample"),
        ("", "no layer ''"),
    ],
)
def test_a_layer_that_there_is_not_is_named(layer, said):
    with pytest.raises(UserError) as error:
        find_layers(["WN", layer], FRESH)
    assert str(error.value).startswith("ignore_layers: ") and said in str(error.value)


def test_only_the_weights_of_weight_norm_have_another_name():
    names = ["a.weight_g", "a.weight_v", "a.weight", "a.weight_gv", "a.big_g", "weight_g"]
    assert [without_norm(name) for name in names] == ["a.weight", "a.weight", *names[2:]]


CONFIG = {
    "waveglow_config": {"n_flows": 12, "WN_config": {"n_layers": 8, "n_channels": 256}},
    "data_config": {**dict.fromkeys(AUDIO, 7), "segment_length": 16000},
}


def changed(section, name, value):
    config = copy.deepcopy(CONFIG)
    *where, last = [section, *name.split(".")]
    values = config
    for each in where:
        values = values[each]
    values[last] = value
    return config


@pytest.mark.parametrize(
    ("section", "name"),
    [("waveglow_config", "n_flows"), ("waveglow_config", "WN_config.n_layers"), *(("data_config", n) for n in AUDIO)],
)
def test_another_model_or_other_audio_is_refused_by_the_name_of_the_field(section, name):
    saved = changed(section, name, 3)
    with pytest.raises(UserError, match=rf"^a was trained with {section}.{name} = 3, the config says (7|8|12)$"):
        check_same_model("a", saved, CONFIG, "waveglow")
    check_same_model("a", saved, CONFIG, "waveglow", may_change=[name])


def test_what_does_not_make_the_model_may_differ():
    check_same_model("a", CONFIG, CONFIG, "waveglow")
    check_same_model("a", changed("data_config", "segment_length", 3), CONFIG, "waveglow")
    check_same_model("a", {"waveglow_config": {}}, CONFIG, "waveglow")  # a form that does not tell
    check_same_model("a", {}, CONFIG, "waveglow")
    more = changed("waveglow_config", "n_more", 5)
    check_same_model("a", more, CONFIG, "waveglow")
