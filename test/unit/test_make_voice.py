"""tools/make_voice.py: what is put into a voice's files, number by number."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from common import voices
from common.program import UserError
from tools import make_voice
from tools.make_voice import in_half, merged, shipped, without_run

DATA = {"sampling_rate": 16000, "training_files": "/private/a", "validation_files": "/private/b", "dictionary": ""}
CONFIG = {"tacotron2_config": {"a": 1}, "waveglow_config": {"b": 2}, "data_config": DATA, "train_config": {"c": 3}}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_is_merged():
    conv = nn.utils.weight_norm(nn.Conv1d(3, 4, 5))
    conv.weight_g.data *= torch.arange(1.0, 5)[:, None, None]
    conv(torch.zeros(1, 3, 9))
    plain = merged({f"x.{name}": tensor for name, tensor in conv.state_dict().items()} | {"y.weight": torch.ones(1)})
    assert plain.keys() == {"x.weight", "x.bias", "y.weight"}
    torch.testing.assert_close(plain["x.weight"], conv.weight.data)


@pytest.mark.parametrize("value", [65504.0, -65504.0])
def test_floats_become_halves_and_integers_stay(value):
    assert torch.equal(in_half("f", "a", torch.tensor([value, 0.1])), torch.tensor([value, 0.1]).half())
    whole = torch.tensor([70000])
    assert in_half("f", "a", whole) is whole
    for bad in (65536.0, -70000.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"^f: a\.b has values that are not finite or too large for float16$"):
            in_half("f", "a.b", torch.tensor([1.0, bad]))


@pytest.mark.parametrize("model", voices.MODELS)
def test_a_configuration_is_that_of_the_model_and_the_audio(model):
    own = {f"{model}_config": CONFIG[f"{model}_config"], "data_config": {"sampling_rate": 16000, "dictionary": ""}}
    assert without_run(CONFIG, model) == own
    assert without_run({f"{model}_config": {}, "data_config": {}}, model) == {f"{model}_config": {}, "data_config": {}}


@pytest.mark.parametrize(("dictionary", "taken"), [("cmudict", True), ("", True), ("my.dict", False)])
def test_a_dictionary_comes_with_the_repository_or_not_at_all(dictionary, taken):
    config = CONFIG | {"data_config": DATA | {"dictionary": dictionary}}
    if taken:
        assert without_run(config, "tacotron2")["data_config"]["dictionary"] == dictionary
    else:
        with pytest.raises(UserError, match=r"a voice cannot include its dictionary my\.dict: train with 'cmudict'"):
            without_run(config, "tacotron2")


def test_a_file_holds_weights_configuration_and_iteration(monkeypatch, tmp_path):
    weights = {"a": torch.tensor([0.1]), "n": torch.tensor([3])}
    checkpoint = SimpleNamespace(weights=weights, config=CONFIG, iteration=77)
    monkeypatch.setattr(make_voice, "read", lambda path, model: {("p", "waveglow"): checkpoint}[path, model])
    (tmp_path / "v").write_bytes(shipped("p", "waveglow"))
    with safetensors.safe_open(tmp_path / "v", "pt") as file:
        metadata = file.metadata()
        assert {name: file.get_tensor(name) for name in file.keys()} == {"a": weights["a"].half(), "n": weights["n"]}  # noqa: SIM118
    assert metadata.keys() == {"format", "config", "iteration"}
    assert (metadata["format"], json.loads(metadata["iteration"])) == ("pt", 77)
    assert json.loads(metadata["config"]) == without_run(CONFIG, "waveglow")


@pytest.fixture
def make(monkeypatch, tmp_path):
    """The program with files that tell what they were made of."""
    monkeypatch.setattr(voices, "FOLDER", tmp_path / "voices")
    monkeypatch.setattr(make_voice, "shipped", lambda path, model: f"{model} of {path}".encode() * 100_000)
    monkeypatch.setattr(make_voice, "open_log", lambda *_, **__: None)

    def make(*options):
        monkeypatch.setattr(sys, "argv", ["make_voice", *options])
        make_voice.main()
        return tmp_path / "voices" / options[0]

    return make


def test_a_voice_is_two_files_and_its_settings(make, caplog):
    caplog.set_level("INFO")
    folder = make("anna", "--tacotron2=t", "--waveglow=w", "--sigma=0.4", "--denoiser_strength=0.1")
    hashes = {}
    for model, path in (("tacotron2", "t"), ("waveglow", "w")):
        file = folder / f"{model}.safetensors"
        assert file.read_bytes() == f"{model} of {path}".encode() * 100_000
        hashes[model] = voices.sha256(file)
    text = (folder / "voice.json").read_text()
    assert json.loads(text) == {"sha256": hashes, "sigma": 0.4, "denoiser_strength": 0.1, "text_cleaners": []}
    assert text.endswith("}\n") and text.startswith('{\n    "sha256"')
    assert caplog.messages == [f"wrote {folder}: tacotron2 1.4 MB, waveglow 1.3 MB"]
    assert voices.find_voice("anna").settings.sigma == 0.4


def test_without_options_it_is_the_usual_sound(make):
    settings = json.loads((make("anna", "--tacotron2=t", "--waveglow=w") / "voice.json").read_text())
    assert (settings["sigma"], settings["denoiser_strength"]) == (0.6, 0.0)
    for options in (["--sigma=0"], ["--denoiser_strength=0"]):
        make("anna", "--tacotron2=t", "--waveglow=w", *options)


@pytest.mark.parametrize("missing", voices.MODELS)
def test_both_checkpoints_are_needed(make, capsys, missing):
    with pytest.raises(SystemExit) as end:
        make("anna", *(f"--{model}=x" for model in voices.MODELS if model != missing))
    assert end.value.code == 2 and f"--{missing}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--sigma=-0.1"], ["--sigma=inf"], ["--denoiser_strength=-1"], ["--denoiser_strength=nan"]]
)
def test_settings_that_cannot_be(make, capsys, options):
    with pytest.raises(SystemExit) as end:
        make("anna", "--tacotron2=t", "--waveglow=w", *options)
    assert end.value.code == 2
    assert re.search(rf"{options[0].partition('=')[0]} is .*, must be 0 or above", capsys.readouterr().err)
