"""Messages that tell a command: it has the user's options, and pasted it does what the message says."""

import json
import shlex
import shutil
import sys
from dataclasses import replace

import onnx
import pytest
from deploy_toys import models_dir

from common.program import UserError
from common.voices import sha256
from conftest import ROOT
from tools.deploy import commands, run, stages
from tools.deploy.artifacts import ONNX, read_contents
from tools.deploy.benchmark import perf
from tools.deploy.checkpoints import Wanted, find_checkpoints, naming
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


@pytest.mark.parametrize("engine", ["onnxruntime", "torch", "magicmind"])
def test_a_command_that_builds_says_for_which_engine_and_how(monkeypatch, tmp_path, engine):
    command = commands.build(engine, "int8", (1, 3, 9), tmp_path / "my models", tmp_path / "out", ["--json=a b.json"])
    module, *options = told(command)
    monkeypatch.setattr(sys, "argv", ["program", *options])
    args = module.read_arguments()
    assert (module, args.engine, args.quant_mode, args.bs) == (build, engine, "int8", [1, 3, 9])
    assert (args.models_dir, args.output, str(args.json)) == (tmp_path / "my models", tmp_path / "out", "a b.json")


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


@pytest.mark.parametrize(
    "options",
    [
        ["--voice=heart"],  # whose noise has a scale of its own
        ["--voice=heart", "--waveglow=my toys/waveglow.safetensors", "--opset=18"],
        ["--tacotron2=my toys/tacotron2.safetensors", "--waveglow=my toys/waveglow.safetensors", "--opset=13"],
        [
            "--tacotron2=heart/tacotron2",
            "--waveglow=heart/waveglow",
            "--symbols=my toys/s.txt",
            "--sampling_rate=16000",
        ],
        ["--voice=heart", "--config=my toys/c.json", "--gate_threshold=0.25", "--max_decoder_steps=70"],
        ["--random"],
        [],
    ],
)
def test_to_make_graphs_again_all_that_was_said_is_said_again(monkeypatch, tmp_path, options):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models_dir(), "my toys", ignore=shutil.ignore_patterns("on*"))
    (tmp_path / "my toys/s.txt").write_text("a\nb\n")
    (tmp_path / "my toys/c.json").write_text('{"data_config": {"dictionary": "cmudict"}}')
    monkeypatch.setattr(sys, "argv", ["program", "--models_dir=my models", *options])
    args = export.read_arguments()
    wanted = find_checkpoints(args)
    assert not any("=my toys" in option for option in wanted.options)  # they are read in any folder
    contents = read_contents(models_dir() / ONNX, ONNX, "")
    contents.opset, contents.exported_by = args.opset or 11, wanted.options
    _, *told_options = told(contents.again(args.models_dir / ONNX))
    monkeypatch.setattr(sys, "argv", ["program", *told_options])
    again = export.read_arguments()
    assert (again.models_dir, again.opset) == (args.models_dir, contents.opset)
    assert find_checkpoints(again) == replace(wanted, named=True)


def test_so_it_is_with_engines(run_here, folder, infer_with):
    graph = onnx.load(folder / ONNX / "postnet.onnx")
    graph.producer_name = "another"
    onnx.save(graph, folder / "mine.onnx")
    (folder / "my.json").write_text(json.dumps({"ranges": {"text": [4, 8, 300]}}))
    files = ["--json=my models/my.json", "--postnet=my models/mine.onnx"]
    built = run_here(build.main, "--quant_mode=force_float32", "--bs", "1,2,2", "--models_dir=my models", *files)
    assert built.returncode == 0, built.stderr
    sizes = ["--bs=3", "--il=300"]
    module, *options = told(infer_with(*sizes).stderr)
    assert run_here(module.main, *options).returncode == 0
    again = infer_with(*sizes)
    assert again.returncode == 0, again.stderr
    contents = read_contents(folder / "onnxruntime_force_float32", "onnxruntime", "")
    assert contents.made_of["postnet"] == sha256(folder / "mine.onnx")


@pytest.mark.parametrize("script", ["run.sh", "benchmark/perf.sh", "export_model/run.sh"])
def test_graphs_that_nobody_wants_to_replace(folder, monkeypatch, tmp_path, script):
    program = {"run.sh": run, "benchmark/perf.sh": perf, "export_model/run.sh": export}[script]
    paths = {kind: str(models_dir() / f"{kind}.safetensors") for kind in ("tacotron2", "waveglow")}
    other = {kind: str(shutil.copy(path, tmp_path / kind)) for kind, path in paths.items()}
    monkeypatch.setattr(sys, "argv", [program.__file__, f"--models_dir={folder}", "--opset=13", "--gate_threshold=0.3"])
    before = vars(program.read_arguments())

    def options_of(message: str) -> dict:
        name, *options = shlex.split(message[message.rindex("bash ") :])[1:]
        assert name.endswith(f"tools/deploy/{script}")
        monkeypatch.setattr(sys, "argv", [name, *options])
        return vars(program.read_arguments())

    argv = sys.argv
    with pytest.raises(UserError) as refused:
        to_onnx.check_replaceable(folder / ONNX, Wanted(other, named=False, options=naming(other)))
    same, _, found = str(refused.value).rpartition("; ")
    assert options_of(same) == before | paths
    assert options_of(found) == before | other
    sys.argv = argv
    with pytest.raises(UserError) as refused:  # before they are fetched
        to_onnx.check_replaceable(folder / ONNX, Wanted(dict.fromkeys(paths, "nowhere"), named=False))
    assert options_of(str(refused.value)) == before | paths


def test_engines_under_a_name_of_the_users_own(folder, tmp_path):
    """They are built of the graphs beside them; if there are none, of those in a folder that the user knows."""
    contents = replace(read_contents(folder / ONNX, ONNX, ""), engine="torch", quant_mode="int8")
    for place, of in ((folder / "mine", str(folder)), (tmp_path / "mine", "DIR")):
        words = shlex.split(contents.build_command(place, [1, 2, 4]))
        assert f"--models_dir={of}" in words and words[-2:] == ["-o", str(place)]


def test_what_a_message_adds_goes_behind_what_was_given(monkeypatch):
    """Of an option that is there twice the last one counts."""
    monkeypatch.setattr(sys, "argv", [run.__file__, "--voice=heart", "--seed=1"])
    assert commands.again("--voice=other").endswith("run.sh --voice=heart --seed=1 --voice=other")


def test_paths_are_as_seen_from_where_the_user_stands(monkeypatch, tmp_path):
    for folder, path in ((ROOT, "requirement.txt"), (ROOT / "tools", "../requirement.txt")):
        monkeypatch.chdir(folder)
        assert commands.install("requirement.txt") == f"pip install -r {path}"


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
