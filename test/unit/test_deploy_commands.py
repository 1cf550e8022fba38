"""Messages that tell a command: it has the user's options, and pasted it does what the message says."""

import shlex
import shutil
import sys

import pytest
from deploy_toys import models_dir

from common.program import UserError
from tools.deploy import commands, run, stages
from tools.deploy.artifacts import ONNX, read_contents
from tools.deploy.checkpoints import Wanted, find_checkpoints
from tools.deploy.export_model import export, to_onnx
from tools.deploy.gen_model import build
from tools.deploy.infer_python import infer

MODULES = {"export_model/run.sh": export, "gen_model/run.sh": build}
POSITIONAL = {"export_model/run.sh": 0, "gen_model/run.sh": 4}
QUICK = ["--num_iters=1", "--warmup_iters=0", "--il=20", "--no-waveglow", "--quant_mode=force_float32"]


@pytest.fixture
def folder(tmp_path):
    """A models_dir with graphs."""
    (tmp_path / "my models").mkdir()
    shutil.copytree(models_dir() / ONNX, tmp_path / "my models" / ONNX)
    return tmp_path / "my models"


@pytest.fixture
def infer_with(run_here, folder):
    return lambda *options: run_here(infer.main, *QUICK, "--models_dir=my models", "-o", "out", *options)


def told(message: str) -> list[str]:
    """The program of the command at the end of a message, as the script starts it."""
    words = shlex.split(message[message.rindex("bash ") :])
    name = "/".join(words[1].split("/")[-2:])
    n = POSITIONAL[name]
    given = ["--quant_mode", words[2], "--bs", *words[3:6]] if n else []
    return [MODULES[name], *given, *words[2 + n :]]


def export_told(monkeypatch, message: str) -> tuple[str, dict[str, str], int | None]:
    """(models_dir, checkpoints, opset) of a command that exports."""
    module, *options = told(message)
    assert module is export
    monkeypatch.setattr(sys, "argv", ["program", *options])
    args = export.read_arguments()
    return args.models_dir, find_checkpoints(args).paths, args.opset


def test_engines_that_are_not_there_or_too_small(run_here, infer_with):
    for batch in ("2", "9"):  # those for 2 take up to 8
        said = infer_with(f"--bs={batch}")
        assert said.returncode == 1
        module, *options = told(said.stderr)
        assert module is build
        assert run_here(module.main, *options).returncode == 0
        again = infer_with(f"--bs={batch}")
        assert again.returncode == 0, again.stderr


def test_an_engine_that_is_damaged(run_here, infer_with, folder):
    module, *options = told(infer_with("--bs=3").stderr)
    run_here(module.main, *options)
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"x"), lambda path: longer(path)):
        damage(folder / "onnxruntime_force_float32/postnet.onnx")
        said = infer_with("--bs=3")
        assert said.returncode == 1
        module, *options = told(said.stderr)
        assert run_here(module.main, *options).returncode == 0
    assert infer_with("--bs=3").returncode == 0


def longer(path):
    path.write_bytes(path.read_bytes() + b"x")


def test_a_graph_that_is_damaged(run_here, folder, monkeypatch):
    longer(folder / ONNX / "postnet.onnx")
    options = ["--quant_mode=force_float32", "--bs=2", "--models_dir=my models"]
    said = run_here(build.main, *options)
    assert said.returncode == 1
    contents = read_contents(folder / ONNX, ONNX, "")
    where, paths, opset = export_told(monkeypatch, said.stderr)
    assert where.resolve() == folder
    assert paths == {kind: source.path for kind, source in contents.sources.items()}
    assert opset == contents.opset


def test_graphs_that_nobody_wants_to_replace(folder, monkeypatch, tmp_path):
    paths = {kind: str(models_dir() / f"{kind}.safetensors") for kind in ("tacotron2", "waveglow")}
    other = {kind: shutil.copy(path, tmp_path / kind) for kind, path in paths.items()}
    with pytest.raises(UserError) as refused:
        to_onnx.check_replaceable(folder / ONNX, Wanted({kind: str(path) for kind, path in other.items()}, False), 13)
    same, _, fetched = str(refused.value).rpartition("; ")
    assert export_told(monkeypatch, same) == (folder, paths, 13)
    assert export_told(monkeypatch, fetched) == (folder, {kind: str(path) for kind, path in other.items()}, 13)
    with pytest.raises(UserError) as refused:  # before they are fetched
        to_onnx.check_replaceable(folder / ONNX, Wanted(dict.fromkeys(paths, "nowhere"), False), 13)
    assert export_told(monkeypatch, str(refused.value)) == (folder, paths, 13)


def test_random_weights_are_exported_to_their_own_folder(monkeypatch, tmp_path):
    for paths in ({"tacotron2": "random weights", "waveglow": "random weights"}, None):
        monkeypatch.setattr(sys, "argv", shlex.split(commands.export(tmp_path / "random", paths))[1:])
        args = export.read_arguments()
        assert (args.models_dir, args.random) == (tmp_path / "random", bool(paths))


def test_fetching_that_broke_off_repeats_all_options(monkeypatch, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/a.part").touch()
    monkeypatch.setenv("NGC_URL", "http://127.0.0.1:9")
    given = ["-o", "my out", f"--models_dir={tmp_path}", "--bs", "1,16", "--devices", "0 1", "--engine=torch"]
    monkeypatch.setattr(sys, "argv", [run.__file__, *given])
    before = vars(run.read_arguments())
    with pytest.raises(UserError, match="are there in part") as refused:
        stages.fetch(tmp_path)
    script, *options = shlex.split(str(refused.value).rpartition("bash ")[2])
    assert script.endswith("tools/deploy/run.sh")
    monkeypatch.setattr(sys, "argv", [script, *options])
    assert vars(run.read_arguments()) == before | {"voice": "heart"}
