"""What stands in front of every program: which Python is found, which packages are installed."""

import re
import shutil

import pytest
from stub_python import StubPython

from conftest import ROOT

REQUIREMENTS = {
    "requirement.txt": "torch==2.9\nnumpy==2.1\ntorchx==1\n",
    "requirement-corpus.txt": "hibari-tts\n",
    "requirement-serve.txt": "fastapi\n",
}


@pytest.fixture
def stub(tmp_path):
    return StubPython(tmp_path / "a stub")


@pytest.fixture
def root(tmp_path):
    """A checkout, as far as setting up reads it."""
    folder = tmp_path / "a check out"
    (folder / "test").mkdir(parents=True)
    for name in ("setup.sh", "find_python.sh", "run_tests.sh"):
        shutil.copy(ROOT / "test" / name, folder / "test")
    for name, text in REQUIREMENTS.items():
        (folder / name).write_text(text)
    return folder


# ---- which Python ----


def found(stub, root, **changes):
    return stub.run("-c", 'source "$1/test/find_python.sh"; find_python "$1"', "-", str(root), **changes)


@pytest.mark.parametrize("active", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_the_active_environment_s_python_is_taken(stub, root, active):
    done = found(stub, root, **({"VIRTUAL_ENV": None} | {active: "/env"}))
    assert (done.returncode, done.stdout) == (0, "python\n")


def test_else_that_of_the_checkout_and_else_the_system_s(stub, root):
    assert found(stub, root, VIRTUAL_ENV=None).stdout == "python3\n"
    (root / ".venv/bin").mkdir(parents=True)  # of a run that was killed
    assert found(stub, root, VIRTUAL_ENV=None).stdout == "python3\n"
    shutil.copy(stub.folder / "bin/python", root / ".venv/bin/python")
    assert found(stub, root, VIRTUAL_ENV=None).stdout == f"{root}/.venv/bin/python\n"
    assert found(stub, root).stdout == "python\n"


def test_without_torch_it_says_what_to_do(stub, root):
    done = found(stub, root, VIRTUAL_ENV=None, HAS_NO_TORCH="1")
    assert (done.returncode, done.stdout) == (1, "")
    name = str(root).replace(" ", r"\ ")
    assert done.stderr == (
        f"error: python3 has no torch: pip install -r {name}/requirement.txt, or bash {name}/test/demo.sh,"
        " which installs into .venv\n"
    )


# ---- packages ----


def set_up(stub, root, **changes):
    script = 'set -euo pipefail; source "$1/test/setup.sh"; setup_environment "$1"; echo "ready with ${VIRTUAL_ENV:-}"'
    return stub.run("-c", script, "-", str(root), **changes)


INSTALL = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "/dev/stdin"]


def test_packages_of_all_three_lists_are_installed_once(stub, root):
    done = set_up(stub, root)
    assert done.returncode == 0, done.stderr
    assert stub.call.arguments == INSTALL
    assert stub.packages() == ["torch==2.9", "numpy==2.1", "torchx==1", "hibari-tts", "fastapi"]
    assert f"into {stub.folder}/prefix (several minutes the first time)" in done.stdout
    assert "ready with x" in set_up(stub, root).stdout
    assert stub.calls == []


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_again_when_one_of_them_has_changed(stub, root, name):
    set_up(stub, root)
    (root / name).write_text(REQUIREMENTS[name] + "more\n")
    set_up(stub, root)
    assert stub.call.arguments == INSTALL and "more" in stub.packages()
    set_up(stub, root)
    assert stub.calls == []


def test_what_numba_compiles_is_compiled_by_one_process_before_others_start(stub, root):
    """Once; where it fails, again with the packages."""
    for code in ("1", ""):
        assert set_up(stub, root, COMPILES_NOT=code).returncode == bool(code)
        assert stub.call.arguments == INSTALL
    set_up(stub, root)
    assert (stub.folder / "compiled").read_text() == "import librosa.core.pitch\n" * 2


def test_what_fails_is_tried_again(stub, root):
    for _ in range(2):
        done = set_up(stub, root, DOES="exit 1")
        assert done.returncode == 1 and "ready" not in done.stdout
        assert stub.call.arguments == INSTALL


def test_torch_npu_keeps_its_torch_and_numpy(stub, root):
    done = set_up(stub, root, HAS_NPU="1")
    assert stub.packages() == ["torchx==1", "hibari-tts", "fastapi"]
    assert "torch_npu is installed: its torch and numpy stay as they are" in done.stdout
    set_up(stub, root, HAS_NPU="1")
    assert stub.calls == []


def test_the_packages_for_an_npu_fit_the_torch_that_is_asked_for():
    """A torch_npu of the release of the torch that is asked for, and what CANN's compiler imports without bringing it
    (its installation guide, Python packages)."""
    needed = dict(re.findall(r"^([\w-]+)(?:==)?(\S*)$", (ROOT / "requirement-npu.txt").read_text(), re.MULTILINE))
    torch = re.search(r"^torch==(\S+)$", (ROOT / "requirement.txt").read_text(), re.MULTILINE)[1]
    assert needed["torch-npu"] == torch
    assert needed.keys() >= {"attrs", "decorator", "pathlib2", "psutil", "pyyaml", "tornado"}


def test_without_an_environment_one_is_made(stub, root):
    venv = root / ".venv"
    venv.mkdir()  # of a run that was killed
    make = """[[ $2 != venv ]] || { mkdir -p "$3/bin"; echo "export VIRTUAL_ENV='$3'" >"$3/bin/activate"; }"""
    done = set_up(stub, root, VIRTUAL_ENV=None, DOES=make)
    assert done.returncode == 0, done.stderr
    assert [call.arguments for call in stub.calls] == [["-m", "venv", str(venv)], INSTALL]
    assert f"ready with {venv}" in done.stdout
    done = set_up(stub, root, VIRTUAL_ENV=None, DOES=make)
    assert stub.calls == [] and f"ready with {venv}" in done.stdout


def test_conda_s_environment_is_one(stub, root):
    set_up(stub, root, VIRTUAL_ENV=None, CONDA_PREFIX="/conda")
    assert stub.call.arguments == INSTALL and not (root / ".venv").exists()


def test_an_old_python_is_refused(stub, root):
    done = set_up(stub, root, VIRTUAL_ENV=None, IS_OLD="1")
    assert done.returncode == 1 and "error: Python 3.10 or newer is needed, " in done.stderr
    assert not (root / ".venv").exists()
    assert "sys.version_info < (3, 10)" in (ROOT / "test/setup.sh").read_text()


def test_the_tests_get_the_options_of_pytest(stub, root):
    done = stub.run(str(root / "test/run_tests.sh"), "-k", "a model", "--slow", OMP_WAIT_POLICY="ACTIVE")
    assert done.returncode == 0, done.stderr
    pip, pytest_ = stub.calls
    assert pip.arguments == INSTALL
    assert pytest_.arguments == ["-m", "pytest", "--numprocesses=auto", "--dist=loadfile", "-k", "a model", "--slow"]
    assert (pytest_.folder, pytest_.environment["OMP_WAIT_POLICY"]) == (str(root), "PASSIVE")
    assert stub.run(str(root / "test/run_tests.sh"), DOES="exit 5").returncode == 5


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_needs_no_packages(stub, root, option):
    done = stub.run(str(root / "test/run_tests.sh"), option)
    assert done.returncode == 0 and stub.calls == []
    assert done.stdout.startswith("Set up and run the tests.\n") and "--slow" in done.stdout and "#" not in done.stdout


@pytest.mark.parametrize("options", [[], ["--host=0.0.0.0", "--voice=a b", "--help"]])
def test_the_service_gets_its_packages_and_its_options(stub, root, tmp_path, options):
    """Relative paths mean what they do where the user stands; a file there is not taken for one of Python's own."""
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools/serve.sh", root / "tools")
    done = stub.run(root / "tools/serve.sh", *options, cwd=tmp_path, PYTHONPATH="/a:/b")
    assert done.returncode == 0, done.stderr
    pip, service = stub.calls
    assert pip.arguments == INSTALL
    assert service.arguments == ["-m", "tools.serve.main", *options]
    assert service.folder == str(tmp_path)
    assert service.environment["PYTHONPATH"] == f"{root}:/a:/b" and service.environment["PYTHONSAFEPATH"] == "1"
    assert stub.run(root / "tools/serve.sh", PYTHONPATH=None, DOES="exit 3").returncode == 3
    assert stub.call.environment["PYTHONPATH"] == str(root)
