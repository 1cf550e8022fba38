"""The scripts of tools/deploy: which program each starts, with which arguments and in which environment."""

import re

import pytest
from stub_python import StubPython

from conftest import ROOT

DEPLOY = ROOT / "tools/deploy"
SCRIPTS = {
    "run.sh": ([], "run", []),
    "export_model/run.sh": ([], "export_model.export", []),
    "benchmark/perf.sh": ([], "benchmark.perf", []),
    "gen_model/run.sh": (["int8", "1", "4", "8"], "gen_model.build", ["--quant_mode", "int8", "--bs", "1", "4", "8"]),
    "infer_python/run.sh": (["int8", "4", "128"], "infer_python.infer",
                            ["--quant_mode", "int8", "--bs", "4", "--il", "128"]),
}  # fmt: skip
"What is given in front of the options, the program, and what that gets in its place."
NEEDED = {
    "gen_model/run.sh": "QUANT_MODE BS_MIN BS BS_MAX", "infer_python/run.sh": "QUANT_MODE BS INPUT_LENGTH",
    "triton/serve.sh": "ENVIRONMENT REPOSITORY",
}  # fmt: skip


@pytest.fixture
def stub(tmp_path):
    return StubPython(tmp_path / "a stub")


@pytest.fixture
def deploy(stub, tmp_path):
    """Runs a script where the user stands."""
    (tmp_path / "here").mkdir()

    def run(script, *options, **changes):
        environment = {"MODEL_PATH": str(tmp_path / "my models"), "NEUWARE_HOME": None, "PYTHONPATH": None} | changes
        return stub.run(DEPLOY / script, *options, cwd=tmp_path / "here", **environment)

    return run


@pytest.mark.parametrize("options", [[], ["--voice=a b", "-o", "", '--d="$HOME" *']])
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_each_script_starts(deploy, stub, tmp_path, script, options):
    first, module, own = SCRIPTS[script]
    done = deploy(script, *first, *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    call = stub.call
    assert call.arguments == ["-m", f"tools.deploy.{module}", *own, *options]
    assert call.folder == str(tmp_path / "here")  # relative paths mean what they do there
    assert call.environment["PYTHONPATH"] == str(ROOT)
    assert call.environment["PYTHONSAFEPATH"] == "1"  # and a file there called as one of Python's own is not taken
    assert call.environment["MODEL_PATH"] == str(tmp_path / "my models")
    assert call.environment["PROJ_ROOT_PATH"] == str(DEPLOY)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_ends_as_its_program_does(deploy, stub, script):
    assert deploy(script, *SCRIPTS[script][0], DOES="exit 75").returncode == 75
    assert len(stub.calls) == 1


def test_the_user_s_own_modules_stay_to_be_found(deploy, stub):
    deploy("run.sh", PYTHONPATH="/a:/b")
    assert stub.call.environment["PYTHONPATH"] == f"{ROOT}:/a:/b"


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("script", [*SCRIPTS, "triton/serve.sh", "export_model/get_datasets_and_models.sh"])
def test_help_wherever_it_is_asked_for(deploy, stub, script, option):
    """The script's head, and then that of the program, which is asked for nothing else."""
    done = deploy(script, "x", "--y", option, "z", DOES="echo usage; exit 0")
    assert done.returncode == 0, done.stderr
    head = (DEPLOY / script).read_text().partition("\n\n")[0].splitlines()[1:]
    has_program = script in SCRIPTS
    assert done.stdout.splitlines() == [re.sub("^# ?", "", line) for line in head] + ["usage"] * has_program
    assert [call.arguments for call in stub.calls] == (
        [["-m", f"tools.deploy.{SCRIPTS[script][1]}", "--help"]] if has_program else []
    )


@pytest.mark.parametrize("script", NEEDED)
def test_what_stands_in_front_must_be_all_there(deploy, stub, script):
    needed = NEEDED[script]
    values = ["v"] * len(needed.split())
    for given in ([], values[:-1], [*values[:-1], "-o"], [*values[:-1], "--voice=heart"], ["-x", *values]):
        done = deploy(script, *given)
        assert (done.returncode, stub.calls) == (2, [])
        assert done.stderr == f"error: give {needed}, and then options (--help says more)\n"


def test_without_torch_it_is_said_how_to_get_it(deploy, stub):
    done = deploy("run.sh", HAS_NO_TORCH="1")
    assert (done.returncode, stub.calls) == (1, [])
    assert "error: python has no torch: pip install -r " in done.stderr


# ---- env.sh ----

NAMES = ("PROJ_ROOT_PATH", "MODEL_PATH", "NEUWARE_HOME", "PATH", "LD_LIBRARY_PATH")


@pytest.fixture
def sourced(stub, tmp_path):
    """What the variables are behind a copy of env.sh that is sourced twice."""
    folder = tmp_path / "a check out/deploy"
    folder.mkdir(parents=True)
    default = tmp_path / "usr local/neuware"
    text = (DEPLOY / "env.sh").read_text()
    assert text.count("/usr/local/neuware") == 2
    (folder / "env.sh").write_text(text.replace(":-/usr/local/neuware", f":-{default}"))
    show = "\n".join(f'echo "$(declare -p {name} 2>/dev/null | cut -c9,10) ${{{name}-unset}}"' for name in NAMES)

    def source(**changes):
        script = f'set -eu; source "$1/env.sh"; source "$1/env.sh"; {show}'
        clean = dict.fromkeys(NAMES[:3]) | {"LD_LIBRARY_PATH": None}
        done = stub.run("-c", script, "-", folder, cwd=tmp_path, **clean | changes)
        assert done.returncode == 0, done.stderr
        lines = dict(zip(NAMES, done.stdout.splitlines(), strict=True))
        return {
            name: line.partition(" ")[2] for name, line in lines.items() if line.startswith("-x") or "unset" in line
        }

    source.folder, source.default = folder, default
    return source


def test_without_cambricon_s_software_only_our_own_folders_are_set(sourced):
    found = sourced()
    assert (found["PROJ_ROOT_PATH"], found["MODEL_PATH"]) == (str(sourced.folder), f"{sourced.folder}/models")
    assert (sourced.folder / "models").is_dir()
    assert found["NEUWARE_HOME"] == found["LD_LIBRARY_PATH"] == "unset"
    assert "neuware" not in found["PATH"]


def test_a_folder_of_models_that_is_named_stays(sourced, tmp_path):
    assert sourced(MODEL_PATH=f"{tmp_path}/of mine/models")["MODEL_PATH"] == f"{tmp_path}/of mine/models"
    assert (tmp_path / "of mine/models").is_dir() and not (sourced.folder / "models").exists()


def test_a_folder_of_models_that_cannot_be_made_ends_nothing(sourced):
    """Whoever needs it says so."""
    assert sourced(MODEL_PATH="/dev/null/models")["MODEL_PATH"] == "/dev/null/models"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("libraries", [None, "/a:/b"])
def test_cambricon_s_software_is_found_once(sourced, tmp_path, named, libraries):
    home = tmp_path / "neu ware" if named else sourced.default
    home.mkdir(parents=True)
    changes = {"NEUWARE_HOME": str(home)} if named else {}
    found = sourced(LD_LIBRARY_PATH=libraries, **changes)
    assert found["NEUWARE_HOME"] == str(home)
    assert found["LD_LIBRARY_PATH"] == f"{home}/lib64" + (":/a:/b" if libraries else "")
    assert found["PATH"].startswith(f"{home}/bin:") and found["PATH"].count(str(home)) == 1


def test_a_folder_that_is_not_there_is_not_searched(sourced):
    found = sourced(NEUWARE_HOME="/nowhere")
    assert "nowhere" not in found["PATH"] and found["LD_LIBRARY_PATH"] == "unset"


def test_a_path_that_has_it_already_stays(sourced, tmp_path):
    (tmp_path / "n").mkdir()
    libraries = f"/a:{tmp_path}/n/lib64:/b"
    found = sourced(NEUWARE_HOME=f"{tmp_path}/n", LD_LIBRARY_PATH=libraries)
    assert found["LD_LIBRARY_PATH"] == libraries and f"{tmp_path}/n/bin" not in found["PATH"]
