"""The options of the training programs: each reaches its field, and what is not given stays as the file says."""

from dataclasses import asdict

import pytest

import tacotron2.train
import waveglow.train
from common import options
from common.config_reading import load_config
from common.options import configure, names
from common.program import Parser, UserError
from conftest import write_config
from tacotron2.config import Config as Tacotron2Config
from waveglow.config import Config as WaveGlowConfig
from waveglow.config import WaveGlowTrainConfig

PROGRAMS = {"waveglow": (waveglow.train, WaveGlowConfig), "tacotron2": (tacotron2.train, Tacotron2Config)}
GIVEN = {
    "output_directory": "out", "checkpoint_path": "a.pt", "ignore_layers": ["postnet", "embedding.weight"],
    "epochs": 3, "max_steps": 5, "batch_size": 7, "learning_rate": 0.25, "amp": "O1", "loss_scale": "64",
    "workers": 1, "profile": 2, "keep_checkpoints": 4, "on_save_error": "continue", "on_bad_clip": "skip",
    "hang_limit": 60,
}  # fmt: skip


def configured(name, *options):
    module, kind = PROGRAMS[name]
    return configure(module.read_arguments(list(options)), kind)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_option_that_is_not_given_leaves_the_field_as_the_file_says(name, tmp_path):
    values = {"train_config": GIVEN | {"keep_optimizer": True}, "data_config": {"training_files": "list.txt"}}
    path = write_config(tmp_path / "c.json", values)
    assert asdict(configured(name, f"--config={path}")) == asdict(load_config(path, PROGRAMS[name][1]))
    assert configured(name).train_config.batch_size == {"waveglow": 24, "tacotron2": 64}[name]  # of the shipped file


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("option", [*GIVEN, "keep_optimizer"])
def test_an_option_reaches_its_field_and_no_other(name, option):
    value = GIVEN.get(option, True)
    text = f"={','.join(value) if isinstance(value, list) else value}" if option in GIVEN else ""
    plain, found = (asdict(configured(name, *given)) for given in ([], [f"--{option}{text}"]))
    expected = 64.0 if option == "loss_scale" else value
    assert found["train_config"][option] == expected != plain["train_config"][option]
    found["train_config"][option] = plain["train_config"][option]
    assert found == plain


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("option", ["workers", "max_steps", "profile", "keep_checkpoints"])
def test_a_zero_that_is_given_goes_before_the_file(name, option, tmp_path):
    """As what an option that takes text says with nothing behind it."""
    path = write_config(tmp_path / "c.json", {"train_config": {option: 5, "checkpoint_path": "a.pt"}})
    assert getattr(configured(name, f"--config={path}", f"--{option}=0").train_config, option) == 0
    assert configured(name, f"--config={path}", "--checkpoint_path=").train_config.checkpoint_path == ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_help_names_every_option_of_the_training(name, monkeypatch, capsys):
    """With what its values are, and the value that it has if nobody gives one."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        PROGRAMS[name][0].read_arguments(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for option in (
        "--output_directory DIR", "--checkpoint_path FILE", "--keep_optimizer", "--ignore_layers NAME,...",
        "--epochs N", "--max_steps N", "--batch_size N", "--learning_rate X", "--amp {O0,TF32,O1,O2}",
        "--loss_scale N|dynamic", "--workers N", "--profile N", "--keep_checkpoints N",
        "--on_save_error {stop,continue}", "--on_bad_clip {stop,skip}", "--hang_limit SECONDS",
        "--training_files FILE", "--data_path DIR", "--config FILE", "--resume auto|no|FILE",
        *(["--compile", "--mels_path DIR"] if name == "waveglow" else []),
    ):  # fmt: skip
        assert f" {option} " in said, option
    assert ("--compile" in said) == ("--mels_path" in said) == (name == "waveglow")
    assert f"(default: configs/{name}.json)" in said or f"/configs/{name}.json)" in said
    for value in ("[checkpoints]", "[1800]", "[dynamic]", "[2]", "[5]", "[stop]"):
        assert value in said


def test_an_explanation_may_speak_of_percent(monkeypatch):
    """Which argparse would take for a format."""
    plain = options.explanations
    says = lambda kind: {name: f"10 % of {name}" if kind is WaveGlowTrainConfig else said  # noqa: E731
                         for name, said in plain(kind).items()}  # fmt: skip
    monkeypatch.setattr(options, "explanations", says)
    parser = Parser("", "")
    options.add_training_options(parser, "c.json", WaveGlowConfig)
    assert "10 % of epochs [313]" in " ".join(parser.format_help().split())


def test_files_and_mels_are_of_the_data():
    config = configured("waveglow", "--training_files=a.txt", "--mels_path=m")
    assert (config.data_config.training_files, config.data_config.mels_path) == ("a.txt", "m")
    assert configured("tacotron2", "--training_files=a.txt").data_config.training_files == "a.txt"
    with pytest.raises(SystemExit):
        configured("tacotron2", "--mels_path=m")
    with pytest.raises(UserError, match="give --data_path or --training_files, not both"):
        configured("tacotron2", "--training_files=a.txt", "--data_path=b")


@pytest.mark.parametrize(
    ("text", "found"), [("", []), ("a", ["a"]), ("a,b.c", ["a", "b.c"]), (" a , b ,", ["a", "b"]), (",,", [])]
)
def test_a_list_of_names_has_no_empty_ones(text, found):
    assert names(text) == found


@pytest.mark.parametrize("option", ["--amp=O3", "--on_bad_clip=stay", "--on_save_error=no", "--epochs=1.5", "--case=x"])
def test_what_an_option_cannot_be_ends_with_code_2(option, capsys):
    with pytest.raises(SystemExit) as end:
        configured("waveglow", option)
    assert end.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_a_value_out_of_range_is_refused_as_in_the_file():
    with pytest.raises(UserError, match="train_config: epochs is 0, must be above 0"):
        configured("waveglow", "--epochs=0")


def test_what_the_scripts_set():
    args = waveglow.train.read_arguments([])
    assert (args.data_path, args.device, args.device_id, args.case, args.resume) == ("", "auto", 0, "acc", "auto")
    assert (args.log_directory, args.started) == (None, None)
    args = waveglow.train.read_arguments(["--device_id=3", "--started=12", "--case=perf", "--log_directory=l"])
    assert (args.device_id, args.started, args.case, args.log_directory) == (3, 12, "perf", "l")
