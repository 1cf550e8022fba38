"""The smallest and largest values of configurations: these are taken, the next ones are refused by name."""

import re

import pytest

from common.config_reading import from_dict
from common.program import UserError
from tacotron2.config import Config as Tacotron2Config
from waveglow.config import Config as WaveGlowConfig

COUNT, SIZE = 2**40, 2**14
CONFIGS = {"tacotron2": Tacotron2Config, "waveglow": WaveGlowConfig}
TRAINING = {
    **dict.fromkeys(["epochs", "batch_size", "grad_accumulation"], (1, COUNT)),
    **dict.fromkeys(["iters_per_checkpoint", "iters_per_validation"], (1, COUNT)),
    **dict.fromkeys(["max_steps", "profile", "keep_checkpoints", "warmup_steps", "decay_steps"], (0, COUNT)),
    "hang_limit": (1, 10**7),
    "workers": (0, 1024),
    "seed": (0, 2**62),
}
RANGES = {
    ("tacotron2", "train_config"): TRAINING | {"align_by": (0, COUNT)},
    ("waveglow", "train_config"): TRAINING,
    ("waveglow", "waveglow_config"): {
        "n_flows": (1, 1024),
        **dict.fromkeys(["n_mel_channels", "n_group", "n_early_every", "n_early_size", "upsample_kernel"], (1, 2**16)),
    },
    ("tacotron2", "tacotron2_config"): {
        "max_decoder_steps": (1, 10**6),
        "n_symbols": (1, 2**20),
        "encoder_n_convolutions": (1, 64),
        "postnet_n_convolutions": (1, 64),
        **dict.fromkeys(["n_mel_channels", "n_frames_per_step", "encoder_embedding_dim"], (1, SIZE)),
        **dict.fromkeys(["decoder_rnn_dim", "prenet_dim", "attention_rnn_dim", "attention_dim"], (1, SIZE)),
        **dict.fromkeys(["symbols_embedding_dim", "attention_location_n_filters", "postnet_embedding_dim"], (1, SIZE)),
    },
}  # fmt: skip
WIDE = {"n_layers": (1, 24), "n_channels": (1, SIZE)}
CASES = [(kind, section, name, *ends) for (kind, section), names in RANGES.items() for name, ends in names.items()]


def load(kind, section, values):
    return from_dict(CONFIGS[kind], {section: values})


@pytest.mark.parametrize(("kind", "section", "name", "least", "most"), CASES)
def test_a_number_is_taken_from_the_smallest_to_the_largest(kind, section, name, least, most):
    for value in (least, most):
        assert getattr(getattr(load(kind, section, {name: value}), section), name) == value
    too_small = "must be above 0" if least else "must be 0 or above"
    for value, message in ((least - 1, too_small), (most + 1, f"must be at most {most:.15g}")):
        with pytest.raises(UserError, match=f"^{section}: {name} is {value}, {re.escape(message)}$"):
            load(kind, section, {name: value})


@pytest.mark.parametrize(("name", "least", "most"), [(name, *ends) for name, ends in WIDE.items()])
def test_the_network_of_a_coupling_has_limits(name, least, most):
    for value in (least, most):
        load("waveglow", "waveglow_config", {"WN_config": {name: value}})
    for value in (least - 1, most + 1):
        with pytest.raises(UserError, match=rf"^waveglow_config.WN_config: {name} is {value}, must be"):
            load("waveglow", "waveglow_config", {"WN_config": {name: value}})


@pytest.mark.parametrize(
    ("kind", "section", "values", "name", "most"),
    [
        ("waveglow", "waveglow_config", lambda n: {"WN_config": {"kernel_size": n}}, "kernel_size", 1023),
        *(
            ("tacotron2", "tacotron2_config", lambda n, name=name: {name: n}, name, SIZE - 1)
            for name in ("encoder_kernel_size", "postnet_kernel_size", "attention_location_kernel_size")
        ),
    ],
)
def test_a_kernel_is_odd_and_not_too_large(kind, section, values, name, most):
    for size in (1, 3, most):
        load(kind, section, values(size))
    for size, message in ((2, "must be odd"), (0, "must be above 0"), (most + 2, "must be at most")):
        with pytest.raises(UserError, match=f"{name} is {size}, {message}"):
            load(kind, section, values(size))


@pytest.mark.parametrize("name", ["p_prenet_dropout", "p_attention_dropout", "p_decoder_dropout", "p_frame_dropout"])
def test_a_share_is_from_0_to_below_1(name):
    for share in (0.0, 0.999):
        load("tacotron2", "tacotron2_config", {name: share})
    for share in (-0.001, 1.0):
        with pytest.raises(UserError, match=f"{name} is {share}, must be 0 or above and below 1"):
            load("tacotron2", "tacotron2_config", {name: share})


def test_the_gate_opens_at_a_probability():
    for threshold in (1e-9, 1.0):
        load("tacotron2", "tacotron2_config", {"gate_threshold": threshold})
    for threshold, message in ((0.0, "must be above 0"), (1.001, "must be at most 1")):
        with pytest.raises(UserError, match=f"gate_threshold is {threshold}, {message}"):
            load("tacotron2", "tacotron2_config", {"gate_threshold": threshold})


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("ema_decay", (0.0, 0.999), (-0.1, 1.0)),
        ("learning_rate", (1e-12, 1e18), (0.0, 2e18)),
        ("sigma", (0.1, 1e3), (0.0, 1001.0)),
        ("grad_clip", (0.0, 5.0), (-1.0, 2e12)),
        ("weight_decay", (0.0, 0.1), (-1e-6, 2e12)),
        ("loss_scale", (1.0, "64", "dynamic"), (0.0, "-1", "inf", "fast")),
        ("ignore_layers", ([], ["a"] * 100), (["a"] * 101, [1])),
        ("anneal_epochs", ([], [1] * 100, [COUNT]), ([1] * 101, [0], [COUNT + 1], [1.5], [True])),
    ],
)
def test_the_settings_of_a_training(kind, name, allowed, refused):
    for value in allowed:
        load(kind, "train_config", {name: value})
    for value in refused:
        with pytest.raises(UserError, match=name):
            load(kind, "train_config", {name: value})


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ({"sampling_rate": 2**20}, {"sampling_rate": 2**20 + 1}),
        ({"filter_length": 2**16, "hop_length": 2**16, "win_length": 2**16}, {"hop_length": 2**16 + 1}),
        ({"filter_length": 512, "win_length": 512}, {"filter_length": 512, "win_length": 513}),
        ({"mel_fmin": 0.0, "mel_fmax": 11025.0}, {"mel_fmin": 0.0, "mel_fmax": 11025.5}),
        ({"mel_fmin": 7999.0, "mel_fmax": 8000.0}, {"mel_fmin": 8000.0, "mel_fmax": 8000.0}),
        ({"mel_fmin": 0.5}, {"mel_fmin": -0.5}),
    ],
)
def test_what_a_spectrogram_may_be_computed_with(kind, allowed, refused):
    segment = {"segment_length": 2**16} if kind == "waveglow" else {}
    load(kind, "data_config", segment | allowed)
    with pytest.raises(UserError, match=r"^data_config: "):
        load(kind, "data_config", segment | refused)


def test_a_segment_holds_a_frame_at_least():
    for length in (1024, 2**26):
        load("waveglow", "data_config", {"segment_length": length})
    for length, message in ((1023, "segment_length 1023 is below filter_length 1024"), (2**26 + 1, "at most")):
        with pytest.raises(UserError, match=message):
            load("waveglow", "data_config", {"segment_length": length})


def test_the_cleaners_are_a_list_of_names():
    for names in ([], ["basic_cleaners"] * 100):
        assert load("tacotron2", "data_config", {"text_cleaners": names}).data_config.text_cleaners == names
    for names in (["basic_cleaners"] * 101, [1], ["english"]):
        with pytest.raises(UserError, match="cleaner"):
            load("tacotron2", "data_config", {"text_cleaners": names})
