"""Voices by name: made of two checkpoints, found, checked, spoken with."""

import hashlib
import json
import shlex
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from toy_speech import make_models, run_synthesize

from common import voices
from common.checkpoints import native
from common.checkpoints.interchange import read
from common.config_fields import flattened
from common.program import Parser, UserError
from tools import convert_checkpoint, make_voice, sound


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "FOLDER", tmp_path / "voices")
    return tmp_path / "voices"


@pytest.fixture
def models(tmp_path):
    return make_models(tmp_path, tacotron2_data={"training_files": "/somewhere/private.txt"})


def make(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["make_voice", *options])
    monkeypatch.setattr(make_voice, "open_log", lambda *args, **kwargs: None)
    make_voice.main()


def test_a_voice_speaks_by_its_name(folder, models, monkeypatch, tmp_path):
    """As its checkpoints do with the same settings, but for the rounding of the weights."""
    make(monkeypatch, "anna", *models, "--sigma=0.3")
    run_synthesize(monkeypatch, "Some text.", "--voice=anna", "-o", tmp_path / "voice.wav")
    run_synthesize(monkeypatch, "Some text.", *models, "--sigma=0.3", "-o", tmp_path / "checkpoints.wav")
    ours, theirs = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("voice", "checkpoints"))
    assert ours.std() > 0
    assert abs(ours - theirs).max() < 0.002 * abs(theirs).max()
    run_synthesize(monkeypatch, "Some text.", "--voice=anna", "--sigma=0.6", "-o", tmp_path / "louder.wav")
    assert abs(soundfile.read(tmp_path / "louder.wav")[0] - ours).max() > 0.1 * ours.max()


def test_the_default_has_no_option(folder, models, monkeypatch, tmp_path):
    make(monkeypatch, voices.DEFAULT, *models)
    run_synthesize(monkeypatch, "Some text.", "-o", tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").frames > 0


def test_what_is_shipped(folder, models, monkeypatch):
    """Half precision, the configuration of the model and the audio, and nothing else of the run that made it."""
    make(monkeypatch, "anna", *models)
    for model, option in zip(voices.MODELS, models, strict=True):
        path, source = folder / "anna" / f"{model}.safetensors", read(option.split("=")[1])
        found = read(path, model)
        assert found.iteration == source.iteration
        ours, theirs = (flattened(each.config[f"{model}_config"]) for each in (found, source))
        assert ours.items() >= theirs.items()
        assert b"private" not in path.read_bytes()
        assert not any(name.endswith("weight_g") for name in found.weights)
        for name, tensor in found.weights.items():
            if name in source.weights:
                assert torch.allclose(tensor.float(), source.weights[name].float(), rtol=1e-3, atol=1e-6)


def test_a_file_that_is_another_is_refused(folder, models, monkeypatch):
    make(monkeypatch, "anna", *models)
    path = folder / "anna" / "waveglow.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"waveglow\.safetensors is not the file of voice anna"):
        voices.find_voice("anna")
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*waveglow.safetensors"):
        voices.find_voice("anna")


@pytest.mark.parametrize("name", ["nobody", "../voices/anna", "anna/..", "/etc"])
def test_names_that_are_none(folder, models, monkeypatch, name):
    make(monkeypatch, "anna", *models)
    with pytest.raises(UserError, match="choose from anna"):
        voices.find_voice(name)


def test_without_any_voice_checkpoints_have_to_be_named(folder, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint is named, and there is no voice 'heart': there is none yet"):
        run_synthesize(monkeypatch, "Some text.", "-o", tmp_path / "out.wav")


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, -70_000.0])
def test_a_weight_that_float16_cannot_hold_is_not_shipped(folder, models, monkeypatch, value):
    path = Path(models[1].split("=")[1])
    state = native.load(path)
    state["model"]["WN.0.end.bias"][0] = value
    native.save(path, state)
    with pytest.raises(UserError, match=r"WN\.0\.end\.bias"):
        make(monkeypatch, "anna", *models)
    assert not (folder / "anna").exists()


def test_a_model_of_a_voice_is_converted_by_name(folder, models, monkeypatch, tmp_path):
    make(monkeypatch, "anna", *models)
    monkeypatch.setattr(sys, "argv", ["convert", "anna/waveglow", str(tmp_path / "out"), "--to=nvidia"])
    monkeypatch.setattr(convert_checkpoint, "open_log", lambda *args, **kwargs: None)
    convert_checkpoint.main()
    assert read(tmp_path / "out").kind == "waveglow"


def test_a_file_goes_before_a_voice_of_its_name(folder, models, monkeypatch, tmp_path):
    make(monkeypatch, "anna", *models)
    monkeypatch.chdir(tmp_path)
    assert voices.checkpoint_of("anna/waveglow") == folder / "anna/waveglow.safetensors"
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna/waveglow").write_bytes(b"")
    assert voices.checkpoint_of("anna/waveglow") == "anna/waveglow"


def test_a_voice_and_a_tacotron2_exclude_each_other(folder, models, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_synthesize(monkeypatch, "Some text.", "--voice=anna", *models, "-o", tmp_path / "out.wav")
    assert ended.value.code == 2
    assert "exclude each other" in capsys.readouterr().err


def test_the_settings_are_json(folder, models, monkeypatch):
    make(monkeypatch, "anna", *models, "--denoiser_strength=0.1")
    settings = json.loads((folder / "anna" / "voice.json").read_text())
    assert settings["denoiser_strength"] == 0.1
    assert settings["sha256"].keys() == set(voices.MODELS)


@pytest.mark.parametrize("name", ["cmudict", "/somewhere/my.dict"])
def test_a_voice_keeps_the_dictionary_that_comes_with_the_repository_and_no_other(folder, tmp_path, monkeypatch, name):
    models = make_models(tmp_path, tacotron2_data={"dictionary": name})
    if name == "cmudict":
        make(monkeypatch, "anna", *models)
        assert read(folder / "anna/tacotron2.safetensors").config["data_config"]["dictionary"] == "cmudict"
        run_synthesize(monkeypatch, "Some text.", "--voice=anna", "-o", tmp_path / "out.wav")
    else:
        with pytest.raises(UserError, match=r"cannot include its dictionary /somewhere/my.dict: train with 'cmudict'"):
            make(monkeypatch, "anna", *models)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("", []), (".", []), ("..", []), ("a/b", []), ("../a", []),
        ("anna", ["--sigma=nan"]), ("anna", ["--sigma=-1"]), ("anna", ["--denoiser_strength=inf"]),
    ],
)  # fmt: skip
def test_a_voice_has_a_folder_of_its_own_and_settings_it_can_speak_with(
    folder, models, monkeypatch, capsys, name, options
):
    with pytest.raises(SystemExit) as ended:
        make(monkeypatch, name, *models, *options)
    assert ended.value.code == 2
    assert (options[0].partition("=")[0] if options else "NAME") in capsys.readouterr().err
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize("named", [None, "mine"])
def test_a_waveglow_that_is_named_goes_before_the_voice_s(folder, models, monkeypatch, named):
    make(monkeypatch, "anna", *models)
    parser = Parser("", "")
    sound.add_sound_options(parser)
    args = parser.parse_args(["--voice=anna", *([f"--waveglow={named}"] if named else [])])
    sound.check_sound_options(parser, args)
    assert args.tacotron2 == folder / "anna/tacotron2.safetensors"
    assert args.waveglow == (named or folder / "anna/waveglow.safetensors")


def put(folder, name, **settings):
    """A voice of files that hold its name and theirs."""
    (folder / name).mkdir(parents=True)
    hashes = {}
    for model in voices.MODELS:
        content = f"{model} of {name}".encode()
        (folder / name / f"{model}.safetensors").write_bytes(content)
        hashes[model] = hashlib.sha256(content).hexdigest()
    (folder / name / "voice.json").write_text(json.dumps({"sha256": hashes} | settings))


def test_a_voice_is_its_files_and_its_settings(folder):
    put(folder, "heart")
    put(folder, "anna", sigma=0.25, denoiser_strength=0.5, text_cleaners=["basic_cleaners"])
    assert voices.find_voice() == voices.find_voice("heart") != voices.find_voice("anna")
    heart, anna = voices.find_voice(), voices.find_voice("anna")
    assert (heart.settings.sigma, heart.settings.denoiser_strength, heart.settings.text_cleaners) == (0.6, 0.0, [])
    assert (anna.settings.sigma, anna.settings.denoiser_strength) == (0.25, 0.5)
    assert anna.settings.text_cleaners == ["basic_cleaners"] and anna.name == "anna"
    assert (anna.tacotron2, anna.waveglow) == tuple(folder / f"anna/{m}.safetensors" for m in ("tacotron2", "waveglow"))


@pytest.mark.parametrize("model", voices.MODELS)
@pytest.mark.parametrize("name", ["anna", "an na"])
def test_either_file_of_a_voice_is_checked_and_it_is_said_how_to_get_it_again(folder, model, name):
    put(folder, name)
    (folder / name / f"{model}.safetensors").write_bytes(b"other")
    with pytest.raises(UserError) as error:
        voices.find_voice(name)
    again = str(error.value).partition("fetch it again (")[2].removesuffix(")")
    assert shlex.split(again) == ["git", "-C", str(folder / name), "checkout", f"{model}.safetensors"]
    (folder / name / "voice.json").write_text('{"sha256": {}}')
    with pytest.raises(UserError, match="is not the file of voice"):
        voices.find_voice(name)


def test_voices_are_listed_by_their_names(folder):
    assert voices.names() == []
    for name in ("b", "c", "a"):
        put(folder, name)
    (folder / "no voice").mkdir()
    assert voices.names() == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"there is no voice 'd': choose from a, b, c$"):
        voices.find_voice("d")


@pytest.mark.parametrize(
    "text", ["a/tacotron2", "a/waveglow", "a", "a/", "a/other", "b/waveglow", "a/waveglow/x", "x.pt"]
)
def test_what_names_the_model_of_a_voice(folder, monkeypatch, tmp_path, text):
    monkeypatch.chdir(tmp_path)
    put(folder, "a")
    is_model = text in ("a/tacotron2", "a/waveglow")
    assert voices.checkpoint_of(text) == (folder / f"{text}.safetensors" if is_model else text)
    assert voices.checkpoint_of(Path(text)) == (folder / f"{text}.safetensors" if is_model else Path(text))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/tacotron2").write_bytes(b"")  # a file goes before
    assert voices.checkpoint_of(Path("a/tacotron2")) == Path("a/tacotron2")
