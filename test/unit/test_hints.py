"""What a checkpoint does not say is said by the user, or named in one line; what contradicts the weights is refused."""

import argparse
import copy
import json

import pytest
import torch

import tacotron2.config
import tacotron2.infer
import waveglow.config
import waveglow.infer
from common import inference
from common.checkpoints.interchange import Checkpoint, read
from common.config import NpuConfig
from common.hints import add_hint_options, for_kind, read_hints
from common.inference import say_what_is_assumed, with_hints
from common.layers.channels_last import ChannelsLastConv1d
from common.layers.conv import Conv1d
from common.layers.npu import Conv1dAsConv2d
from common.program import Parser, UserError
from conftest import ROOT, toy_config, toy_tacotron2_config
from runs import CPU, make_run
from tacotron2.text.symbols import SYMBOLS
from tools.sound import add_sound_options

BOTH = [tacotron2.config.Config, waveglow.config.Config]


def foreign(tmp_path, values=None, **sizes):
    """A checkpoint that holds nothing but weights."""
    values = values or toy_config()
    (name,) = (name for name in values if name in ("waveglow_config", "tacotron2_config"))
    values[name] |= sizes
    model = make_run(values, tmp_path / "out").model
    torch.save({"state_dict": model.state_dict()}, tmp_path / "foreign.pt")
    return tmp_path / "foreign.pt"


def load(path, **hints):
    package = waveglow.config if read(path).kind == "waveglow" else tacotron2.config
    return inference.load(path, read(path).kind, package.Config, package.build_model, hints)


def said(tmp_path, values, kinds=BOTH, **options):
    (tmp_path / "c.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return read_hints(argparse.Namespace(config=str(tmp_path / "c.json"), **options), kinds)


def test_what_is_assumed_is_one_line(tmp_path, caplog):
    path = foreign(tmp_path)
    with caplog.at_level("INFO"):
        load(path, data_config={"sampling_rate": 16000, "mel_fmin": 50.0})
    (line,) = [line for line in caplog.messages if "assumed" in line]
    assert line == (
        f"{path} leaves these to be assumed: filter_length 1024, hop_length 256, win_length 1024,"
        " mel_fmax 8000.0; --config=FILE changes them"
    )


def test_what_was_guessed_is_no_longer_once_it_is_said(tmp_path, caplog):
    with caplog.at_level("INFO"):
        load(foreign(tmp_path), data_config={"hop_length": 256})
    (line,) = [line for line in caplog.messages if "assumed" in line]
    assert "hop_length" not in line


def test_nothing_is_assumed_where_all_is_said(tmp_path, caplog):
    path = foreign(tmp_path, toy_tacotron2_config())
    shipped = json.loads((ROOT / "configs/tacotron2_demo.json").read_text())
    speech = {name: shipped["tacotron2_config"][name] for name in ("gate_threshold", "max_decoder_steps")}
    hints = said(tmp_path, {"data_config": shipped["data_config"], "tacotron2_config": speech})
    with caplog.at_level("INFO"):
        config = load(path, **hints).config
    assert "assumed" not in caplog.text
    assert config.tacotron2_config.gate_threshold == 0.3 and config.data_config.symbols == SYMBOLS


@pytest.mark.parametrize(("kernel", "hop_length", "guess"), [(1024, 256, 256), (800, 200, 200), (512, 256, 128)])
def test_an_upsampling_of_another_width_is_read_off_the_shapes(tmp_path, kernel, hop_length, guess):
    path = foreign(tmp_path, upsample_kernel=kernel)
    assert load(path).model.hop_length == guess
    loaded = load(path, data_config={"hop_length": hop_length})
    assert loaded.model.hop_length == loaded.config.data_config.hop_length == hop_length
    assert loaded.config.waveglow_config.upsample_kernel == kernel == loaded.model.upsample.kernel_size[0]


def test_the_user_goes_before_the_file(tmp_path):
    torch.save({**torch.load(foreign(tmp_path)), "config": {"sampling_rate": 24000, "mel_fmin": 20.0}},
               tmp_path / "says.pt")  # fmt: skip
    assert load(tmp_path / "says.pt").config.data_config.sampling_rate == 24000
    data = load(tmp_path / "says.pt", data_config={"sampling_rate": 16000}).config.data_config
    assert (data.sampling_rate, data.mel_fmin) == (16000, 20.0)


@pytest.mark.parametrize(("name", "value"), [("n_flows", 3), ("n_group", 16), ("WN_config", {"n_channels": 16})])
def test_a_size_that_contradicts_the_weights_is_refused(tmp_path, name, value):
    hints = said(tmp_path, {"waveglow_config": {name: value}})
    with pytest.raises(UserError, match=r"foreign.pt was trained with waveglow_config\.\w+.*the config says"):
        load(foreign(tmp_path), **hints)


def test_only_what_stands_in_the_file_is_said(tmp_path):
    values = {"data_config": {"sampling_rate": 16000}, "waveglow_config": {"WN_config": {"n_layers": 2}}}
    assert said(tmp_path, values) == values
    assert said(tmp_path, values, hop_length=300, gate_threshold=0.25, symbols=None) == {
        "data_config": {"sampling_rate": 16000, "hop_length": 300},
        "waveglow_config": {"WN_config": {"n_layers": 2}},
        "tacotron2_config": {"gate_threshold": 0.25},
    }
    assert read_hints(argparse.Namespace(), BOTH) == {}


def test_the_configurations_of_trainings_are_taken(tmp_path):
    for name in ("tacotron2_demo", "waveglow_demo"):
        values = json.loads((ROOT / f"configs/{name}.json").read_text())
        hints = said(tmp_path, values)
        assert hints["data_config"].items() >= values["data_config"].items()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("[", "is not JSON"),
        ([], "must be an object of sections"),
        ({"data_config": 1}, "must be an object of sections"),
        ({"data_konfig": {}}, "perhaps 'data_config'"),
        ({"data_config": {"sampling_rat": 1}}, "perhaps 'sampling_rate'"),
        ({"data_config": {"sampling_rate": "1"}}, "sampling_rate is '1', must be int"),
        ({"data_config": {"hop_length": 0}}, "hop_length is 0, must be above 0"),
        ({"tacotron2_config": {"gate_threshold": 1.5}}, "gate_threshold is 1.5, must be at most 1"),
        ({"data_config": {"symbols": "nowhere.txt"}}, "cannot read nowhere.txt"),
        ({"data_config": {"text_cleaners": ["russian"]}}, "no text cleaner 'russian'"),
    ],
)
def test_mistakes_are_named(tmp_path, values, message):
    with pytest.raises(UserError) as error:
        said(tmp_path, values)
    assert message in str(error.value) and "c.json" in str(error.value)


def test_waveglow_knows_no_cleaners(tmp_path):
    with pytest.raises(UserError, match="unknown key 'text_cleaners'"):
        said(tmp_path, {"data_config": {"text_cleaners": []}}, kinds=[waveglow.config.Config])


def test_the_options_of_a_program_are_hints():
    parser = Parser("", "")
    add_sound_options(parser)
    words = "--sampling_rate=16000 --hop_length=200 --gate_threshold=0.4 --max_decoder_steps=70"
    assert read_hints(parser.parse_args(words.split()), BOTH) == {
        "data_config": {"sampling_rate": 16000, "hop_length": 200},
        "tacotron2_config": {"gate_threshold": 0.4, "max_decoder_steps": 70},
    }
    with pytest.raises(UserError, match="data_config: sampling_rate is -1"):
        read_hints(parser.parse_args(["--sampling_rate=-1"]), BOTH)


def test_finetuning_compares_no_hop_that_was_only_guessed(tmp_path):
    values = toy_config()
    values["waveglow_config"]["upsample_kernel"] = 512  # a quarter of which would be 128
    path = foreign(tmp_path, values)
    run = make_run(values, tmp_path / "again", checkpoint_path=str(path))
    run.start("no")
    assert run.progress.finetuned_from == str(path)


def test_an_option_goes_before_the_file_and_is_kept_as_the_configuration_keeps_it(tmp_path):
    """A list of symbols in a file becomes that list; what only the file says stays."""
    (tmp_path / "symbols").write_text("_\na\nb\n")
    values = {"data_config": {"hop_length": 200, "mel_fmax": 7000, "symbols": ["x", "y"]}}
    found = said(tmp_path, values, hop_length=300, sampling_rate=None, symbols=str(tmp_path / "symbols"))
    assert found == {"data_config": {"hop_length": 300, "mel_fmax": 7000, "symbols": ["_", "a", "b"]}}
    for name in ("gate_threshold", "hop_length"):  # nothing is a value, too
        with pytest.raises(UserError, match=f"{name} is 0, must be above 0"):
            said(tmp_path, {}, **{name: 0})
    assert said(tmp_path, {"data_config": {"hop_length": 200}}, sampling_rate=16000) == {
        "data_config": {"hop_length": 200, "sampling_rate": 16000}
    }


@pytest.mark.parametrize("speech", [True, False])
def test_options_of_speech_are_for_programs_that_speak(speech):
    parser = Parser("", "")
    add_hint_options(parser, speech)
    args = vars(parser.parse_args([]))
    of_speech = {"symbols", "gate_threshold", "max_decoder_steps"}
    assert args.keys() == {"debug", "config", "sampling_rate", "hop_length"} | (of_speech if speech else set())
    words = ["--config=c", "--sampling_rate=1", "--hop_length=2"] + ["--gate_threshold=0.5"] * speech
    found = vars(parser.parse_args(words))
    assert (found["config"], found["sampling_rate"], found["hop_length"]) == ("c", 1, 2)
    assert found.get("gate_threshold") == (0.5 if speech else None)


def test_the_evaluation_of_speech_is_a_program_that_speaks(capsys):
    words = ["--pth_path=p", "--output_directory=o", "--gate_threshold=0.5"]
    assert tacotron2.infer.read_arguments(words).gate_threshold == 0.5
    with pytest.raises(SystemExit):
        waveglow.infer.read_arguments([*words, "--data_path=d"])
    assert "unrecognized arguments: --gate_threshold=0.5" in capsys.readouterr().err


def test_each_model_gets_what_concerns_it():
    hints = {"data_config": {"sampling_rate": 1, "text_cleaners": []}, "waveglow_config": {"n_flows": 2},
             "tacotron2_config": {"gate_threshold": 0.5}}  # fmt: skip
    of_tacotron2, of_waveglow = (for_kind(hints, kind) for kind in BOTH)
    assert of_tacotron2 == {name: hints[name] for name in ("data_config", "tacotron2_config")}
    assert of_waveglow == {"data_config": {"sampling_rate": 1}, "waveglow_config": {"n_flows": 2}}
    assert for_kind({}, BOTH[0]) == {}


def test_a_section_or_key_that_no_model_knows_is_named_for_the_file(tmp_path):
    path = str(tmp_path / "c.json")
    for values in ({"nothing": {}}, {"data_config": {"nothing": 1}}, {"waveglow_config": {"nothing": 1}}):
        with pytest.raises(UserError, match="nothing") as error:
            said(tmp_path, values)
        assert str(error.value).startswith(f"{path}: ")
    # Known to one of two, it is taken; for a program of the other alone, it is not.
    assert said(tmp_path, {"tacotron2_config": {"gate_threshold": 0.5}}) == {
        "tacotron2_config": {"gate_threshold": 0.5}
    }
    with pytest.raises(UserError, match="tacotron2_config"):
        said(tmp_path, {"tacotron2_config": {"gate_threshold": 0.5}}, kinds=BOTH[1:])


SAID = {
    "tacotron2_config": {"prenet_dim": 12, "gate_threshold": 0.5},
    "data_config": {"sampling_rate": 24000, "mel_fmin": 20.0},
    "train_config": {"seed": 3},
}


def checkpoint(progress=None, guessed=("hop_length",), **changes):
    return Checkpoint("tacotron2", copy.deepcopy(SAID) | changes, {}, 0, progress or {}, set(guessed))


@pytest.mark.parametrize(
    ("hints", "changes", "guessed"),
    [
        ({"data_config": {"sampling_rate": 16000}}, {"data_config": {"sampling_rate": 16000, "mel_fmin": 20.0}}, True),
        ({"data_config": {"hop_length": 128}}, {"data_config": SAID["data_config"] | {"hop_length": 128}}, False),
        (
            {"tacotron2_config": {"gate_threshold": 0.25, "max_decoder_steps": 70}},
            {"tacotron2_config": {"prenet_dim": 12, "gate_threshold": 0.25, "max_decoder_steps": 70}},
            True,
        ),
        ({"tacotron2_config": {"prenet_dim": 12, "n_symbols": 7}}, {}, True),  # both follow from the weights
        ({"tacotron2_config": {"n_symbols": 7}}, {}, True),
        ({"waveglow_config": {"n_flows": 3}}, {}, True),  # the other model's
        ({}, {}, True),
    ],
)
def test_what_is_said_stands_in_the_place_of_what_the_file_says(hints, changes, guessed):
    """Of the audio and of what no shape shows, and of nothing else; the checkpoint that was read stays as it is."""
    given = checkpoint()
    found = with_hints("a.pt", given, hints, tacotron2.config.Config)
    assert found.config == SAID | changes
    assert found.guessed == ({"hop_length"} if guessed else set())
    assert given == checkpoint()


@pytest.mark.parametrize("changes", [{"data_config": 3}, {"tacotron2_config": [1]}, {"data_config": None}])
def test_a_file_without_sections_is_refused_later_and_not_by_hints(changes):
    given = checkpoint(**changes)
    hints = {"data_config": {"hop_length": 128}, "tacotron2_config": {"gate_threshold": 0.25}}
    assert with_hints("a.pt", given, hints, tacotron2.config.Config) is given
    given.config = None
    assert with_hints("a.pt", given, hints, tacotron2.config.Config) is given


@pytest.mark.parametrize(
    ("progress", "guessed", "said"),
    [
        ({}, [], "filter_length 1024, hop_length 256, win_length 1024, mel_fmax 8000.0, text_cleaners [], max_decoder"),
        ({}, ["mel_fmin"], "filter_length 1024, hop_length 256, win_length 1024, mel_fmin 0.0, mel_fmax 8000.0, text"),
        ({"iteration": 3}, ["mel_fmin"], None),  # this repository's own, which says all
    ],
)
def test_what_neither_the_file_nor_the_user_says_is_told(caplog, progress, guessed, said):
    caplog.set_level("INFO")
    config = tacotron2.config.Config()
    config.data_config.text_cleaners = []
    say_what_is_assumed("a.pt", checkpoint(progress, guessed), config)
    assert len(caplog.messages) == (1 if said else 0)
    if said:
        assert f"a.pt leaves these to be assumed: {said}" in caplog.text and "gate_threshold" not in caplog.text
        assert caplog.messages[0].endswith("max_decoder_steps 1000; --config=FILE changes them")


@pytest.mark.parametrize("values", [toy_config, toy_tacotron2_config])
def test_a_loaded_model_is_for_inference(tmp_path, values):
    run = make_run(values(), tmp_path / "out")
    torch.save({"state_dict": run.model.state_dict()}, tmp_path / "foreign.pt")
    loaded = load(tmp_path / "foreign.pt")
    assert not loaded.model.training and not any(each.requires_grad for each in loaded.model.parameters())
    ours, theirs = (model.state_dict() for model in (loaded.model, run.model))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (loaded.training.iteration, loaded.training.losses) == (0, [])


def test_a_model_is_prepared_as_its_device_and_its_configuration_want_it():
    def prepared(level, **npu_config):
        model = torch.nn.Sequential(Conv1d(8, 8, kernel_size=3))
        precision = inference.prepare(model, CPU, level, NpuConfig(**npu_config))
        return type(model[0]), model[0].weight.dtype, precision.level

    assert prepared("O0") == (ChannelsLastConv1d, torch.float32, "O0")
    assert prepared("O1") == (ChannelsLastConv1d, torch.float32, "O1")
    assert prepared("O2") == (ChannelsLastConv1d, torch.bfloat16, "O2")
    assert prepared("O0", conv1d_as_conv2d="on") == (Conv1dAsConv2d, torch.float32, "O0")
