"""The dictionary of a checkpoint's training: texts are read with it; if it is missing, that is said before the work."""

import json
import re
import shutil

import pytest
import safetensors
import safetensors.torch
from deploy_toys import engines, models_dir, raw

from common.program import UserError
from tacotron2.text import text_to_sequence
from tools.deploy.artifacts import ONNX, read_any_contents, write_contents
from tools.deploy.checkpoints import Wanted
from tools.deploy.export_model import to_onnx
from tools.deploy.gen_model import build
from tools.deploy.infer_python import infer
from tools.deploy.infer_python.requests import reader

SAYS = r"cannot read the dictionary nowhere.dict: .*put it there; or export with --config=FILE"


@pytest.fixture
def checkpoint(tmp_path):
    """A Tacotron2 that was trained with a dictionary that is not there."""
    with safetensors.safe_open(models_dir() / "tacotron2.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    config["data_config"]["dictionary"] = "nowhere.dict"
    safetensors.torch.save_file(weights, tmp_path / "t.safetensors", {"config": json.dumps(config)})
    return str(tmp_path / "t.safetensors")


def test_nothing_is_exported_without_it_unless_the_user_names_another(tmp_path, monkeypatch, checkpoint):
    written = []
    monkeypatch.setattr(to_onnx, "write", lambda found, *_: written.append(found["tacotron2"].config.data_config))
    paths = {"tacotron2": checkpoint, "waveglow": str(models_dir() / "waveglow.safetensors")}
    with pytest.raises(UserError, match=SAYS):
        to_onnx.export_graphs(tmp_path / "models", Wanted(paths, named=True))
    assert not (tmp_path / "models").exists() and not written
    for other in ("", "cmudict"):
        hints = {"data_config": {"dictionary": other}}
        to_onnx.export_graphs(tmp_path / "models", Wanted(paths, named=True, hints=hints))
        assert written.pop().dictionary == other


def test_nothing_is_built_without_it_and_nothing_is_spoken_or_moved(run_here, tmp_path):
    """It is that of the training; without it words would be spoken otherwise."""
    for source in (models_dir() / ONNX, engines()):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        contents = read_any_contents(folder, "")
        contents.tacotron2.data_config.dictionary = "nowhere.dict"
        write_contents(folder, contents)
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/dev0_0.wav").write_text("earlier")
    for main, output in ((build.main, "engines"), (infer.main, "out"), (infer.main, "earlier")):
        done = run_here(main, f"--models_dir={tmp_path}", "-o", output)
        assert done.returncode == 1
        assert re.search(SAYS, done.stderr)
        assert not (tmp_path / output).exists() or output == "earlier"
    assert [path.name for path in (tmp_path / "earlier").iterdir() if path.name[0] != "."] == ["dev0_0.wav"]
    assert (tmp_path / "earlier/dev0_0.wav").read_text() == "earlier"


def test_a_text_is_read_with_the_dictionary_of_the_training(tmp_path):
    contents = raw()
    contents.tacotron2.data_config.dictionary = str(tmp_path / "my.dict")
    with pytest.raises(UserError, match=r"cannot read the dictionary .*my.dict"):
        reader(contents)
    (tmp_path / "my.dict").write_text("HELLO  HH AH0 L OW1\n")
    assert reader(contents)("Hello you.") == text_to_sequence("{HH AH0 L OW1} you.", [])
