"""Defaults: what is not said is the same in the configuration, the shipped files, the functions and the documents."""

import inspect
import json
import re
from dataclasses import asdict

import pytest

import tacotron2.infer
import waveglow.infer
from common.audio import MelSpectrogram
from common.config import TrainConfig
from conftest import ROOT
from tacotron2.config import Config as Tacotron2Config
from tacotron2.decoder import Decoder
from tacotron2.griffin_lim import GriffinLim
from tacotron2.loss import Tacotron2Loss
from tacotron2.model import Tacotron2
from tacotron2.synthesizer import BaseSynthesizer
from waveglow.config import Config as WaveGlowConfig
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow
from waveglow.vocoder import Vocoder

WAVEGLOW, TACOTRON2 = asdict(WaveGlowConfig()), asdict(Tacotron2Config())
REQUIRED = ["--pth_path=a.pt", "--output_directory=b", "--data_path=c"]


def documented(options):
    """The cell of defaults in the table of docs/training.md, by the cell of options."""
    row = re.search(rf"^\| {options} \|.*\| (.*) \|$", (ROOT / "docs/training.md").read_text(), re.MULTILINE)
    return row[1].strip("`")


@pytest.mark.parametrize(
    ("name", "defaults", "others"),
    [("waveglow", WAVEGLOW, {"fp16_run": True, "loss_scale": 128}), ("tacotron2", TACOTRON2, {})],
)
def test_the_shipped_file_says_the_defaults(name, defaults, others):
    shipped = json.loads((ROOT / f"configs/{name}.json").read_text())
    shipped["train_config"] = {key: value for key, value in shipped["train_config"].items() if key not in others}
    for section, values in shipped.items():
        assert {key: defaults[section][key] for key in values} == values


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (MelSpectrogram, WAVEGLOW["data_config"] | WAVEGLOW["waveglow_config"]),
        (MelSpectrogram, TACOTRON2["data_config"] | TACOTRON2["tacotron2_config"]),
        (WaveGlow, WAVEGLOW["data_config"] | WAVEGLOW["waveglow_config"]),
        (WaveGlowLoss, WAVEGLOW["train_config"]),
        (Tacotron2, TACOTRON2["tacotron2_config"]),
        (Decoder, TACOTRON2["tacotron2_config"]),
        (Tacotron2Loss, TACOTRON2["tacotron2_config"] | TACOTRON2["train_config"]),
        (Vocoder.synthesize, vars(waveglow.infer.read_arguments(REQUIRED))),
        (BaseSynthesizer.speak, vars(tacotron2.infer.read_arguments(REQUIRED)) | {"tries": 3}),
        (BaseSynthesizer.speak_pieces, vars(tacotron2.infer.read_arguments(REQUIRED)) | {"tries": 3}),
        (GriffinLim.synthesize, vars(tacotron2.infer.read_arguments(REQUIRED))),
    ],
)
def test_a_function_has_the_defaults_of_the_configuration_or_of_the_program(function, values):
    parameters = inspect.signature(function).parameters.values()
    given = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    assert given and given == {name: values[name] for name in given}


@pytest.mark.parametrize("program", [waveglow.infer, tacotron2.infer])
def test_voices_and_folders_must_be_named_and_a_seed_has_63_bits(program):
    for missing in REQUIRED[:2]:
        with pytest.raises(SystemExit):
            program.read_arguments([option for option in REQUIRED if option != missing])
    assert program.read_arguments([*REQUIRED, f"--seed={2**63 - 1}"]).seed == 2**63 - 1
    with pytest.raises(SystemExit):
        program.read_arguments([*REQUIRED, f"--seed={2**63}"])


def test_options_may_have_their_smallest_values():
    options = dict(seed=0, sigma=0, denoiser_strength=0, chunk_frames=1)
    args = waveglow.infer.read_arguments([*REQUIRED, *(f"--{name}={value}" for name, value in options.items())])
    assert {name: getattr(args, name) for name in options} == options
    assert tacotron2.infer.read_arguments([*REQUIRED, "--batch_size=1", "--seed=0"]).batch_size == 1


def test_the_table_of_options_says_the_defaults():
    for name in ("workers", "keep_checkpoints", "on_save_error", "on_bad_clip", "hang_limit"):
        assert documented(f"`--{name}`") == str(getattr(TrainConfig(), name))
    says = documented("`--batch_size` `--epochs` `--learning_rate`")
    numbers = [float(number) for number in re.findall(r"[\d.e-]+\d", says)]
    assert numbers == [
        config["train_config"][name] for config in (WAVEGLOW, TACOTRON2)
        for name in ("batch_size", "epochs", "learning_rate")
    ]  # fmt: skip
    args = vars(waveglow.infer.read_arguments(REQUIRED))
    names = ("sigma", "denoiser_strength", "seed", "chunk_frames")
    assert documented(" ".join(f"`--{name}`" for name in names)) == ", ".join(f"{args[name]:g}" for name in names)
    assert vars(tacotron2.infer.read_arguments(REQUIRED))["seed"] == args["seed"]


def test_the_documents_say_when_a_missing_alignment_is_warned_of():
    after = re.search(r"After `align_by` steps \(([\d,]+)\)", (ROOT / "docs/training.md").read_text())
    assert after and int(after[1].replace(",", "")) == TACOTRON2["train_config"]["align_by"]


@pytest.mark.parametrize("config", [WAVEGLOW, TACOTRON2])
def test_what_nvidias_training_has_not_is_off(config):
    train = config["train_config"]
    for name in (
        "max_steps", "warmup_steps", "decay_steps", "ema_decay", "profile", "keep_optimizer", "ignore_layers", "amp",
        "checkpoint_path",
    ):  # fmt: skip
        assert not train[name], name
    assert (train["grad_accumulation"], train["loss_scale"], train["with_tensorboard"]) == (1, "dynamic", True)
    assert not any(WAVEGLOW["train_config"][name] for name in ("weight_decay", "grad_clip", "interpolating_start"))
    assert not any(WAVEGLOW["train_config"][name] for name in ("fixed_upsampling", "recompute"))
    assert TACOTRON2["tacotron2_config"]["p_frame_dropout"] == 0
    assert not WAVEGLOW["train_config"]["anneal_epochs"]
    assert TACOTRON2["train_config"]["anneal_epochs"] == [500, 1000, 1500]  # as in DeepLearningExamples
    assert set(config["npu_config"].values()) == {"auto", "off"}
