"""The dictionary of a checkpoint's training: where it is missing that is said before anything is made."""

import json
import shutil

import pytest
import safetensors
import safetensors.torch
from deploy_toys import engines, models_dir

from common.program import UserError
from tools.deploy.artifacts import ONNX, read_any_contents, write_contents
from tools.deploy.checkpoints import Wanted
from tools.deploy.export_model import to_onnx
from tools.deploy.gen_model import build
from tools.deploy.infer_python import infer

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


def test_nothing_is_exported_unless_the_user_names_another(tmp_path, monkeypatch, checkpoint):
    written = []
    monkeypatch.setattr(to_onnx, "write", lambda found, *_: written.append(found["tacotron2"].config.data_config))
    paths = {"tacotron2": checkpoint, "waveglow": str(models_dir() / "waveglow.safetensors")}
    with pytest.raises(UserError, match=SAYS):
        to_onnx.export_graphs(tmp_path / "models", Wanted(paths, named=True))
    assert not (tmp_path / "models").exists()
    for other in ("", "cmudict"):
        hints = {"data_config": {"dictionary": other}}
        to_onnx.export_graphs(tmp_path / "models", Wanted(paths, named=True, hints=hints))
        assert written.pop().dictionary == other


def test_nothing_is_built_or_spoken(run_here, tmp_path):
    for source in (models_dir() / ONNX, engines()):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        contents = read_any_contents(folder, "")
        contents.tacotron2.data_config.dictionary = "nowhere.dict"
        write_contents(folder, contents)
    for main, *options in ((build.main, "-o", "engines"), (infer.main, "-o", "out")):
        done = run_here(main, f"--models_dir={tmp_path}", *options)
        assert done.returncode == 1
        assert "cannot read the dictionary nowhere.dict" in done.stderr
        assert not (tmp_path / options[-1]).exists()
