"""tools/deploy/triton/serve.sh, beside a stand-in for the environment with nvidia-pytriton and its server."""

import signal
import subprocess

import pytest
from running_programs import listen_to_signals, wait_for
from stub_python import StubPython

from conftest import ROOT

SCRIPT = ROOT / "tools/deploy/triton/serve.sh"
PYTHON = """#!/bin/bash
case $2 in
    *purelib*) echo "{packages}" ;;
    *version_info*) echo 3.10 ;;
esac
"""
SERVER = """#!/bin/bash
printf '%s\\n' "$@" >"$STUB_FOLDER/arguments"
for each in "$@"; do [[ $each != --backend-directory=* ]] || backends=${each#*=}; done
(cd "$backends" && grep -r "") >"$STUB_FOLDER/backends"
echo "$PATH" >"$STUB_FOLDER/path"
echo "$LD_LIBRARY_PATH" >"$STUB_FOLDER/libraries"
eval "${SERVES:-}"
"""


@pytest.fixture
def stub(tmp_path):
    return StubPython(tmp_path / "a stub")


@pytest.fixture
def environment(tmp_path):
    folder = tmp_path / "the environment"
    packages = folder / "lib/site-packages"
    server = packages / "pytriton/tritonserver"
    files = {
        folder / "bin/python": PYTHON.format(packages=packages), server / "bin/tritonserver": SERVER,
        server / "backends/python/libtriton_python.so": "library\n", server / "backends/other/model.py": "other\n",
        server / "python_backend_stubs/3.9/triton_python_backend_stub": "of 3.9\n",
        server / "python_backend_stubs/3.10/triton_python_backend_stub": "of 3.10\n",
    }  # fmt: skip
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return folder


@pytest.fixture
def here(tmp_path, environment):
    """Where the user stands, beside the environment, with a repository."""
    (tmp_path / "my repository/speech").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    return tmp_path


@pytest.fixture
def serve(stub, here):
    def run(*options, **changes):
        own = {"TMPDIR": str(here / "temporary"), "MODEL_PATH": str(here / "models"), "LD_LIBRARY_PATH": None}
        return stub.run(SCRIPT, *options, cwd=here, **own | changes)

    return run


GIVEN = ("the environment", "my repository")


@pytest.mark.parametrize("options", [[], ["--http-port=8000", "--an option", "--voice", "x"]])
def test_what_the_server_gets(serve, stub, here, environment, options):
    done = serve(*GIVEN, *options)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *others = (stub.folder / "arguments").read_text().splitlines()
    assert first == "--model-repository=my repository" and second.startswith("--backend-directory=")
    assert others == options
    # The backend's own helper must be of the Python that runs it.
    assert sorted((stub.folder / "backends").read_text().splitlines()) == [
        "other/model.py:other", "python/libtriton_python.so:library", "python/triton_python_backend_stub:of 3.10",
    ]  # fmt: skip
    assert (stub.folder / "path").read_text().startswith(f"{environment}/bin:")
    libraries = f"{environment}/lib/site-packages/nvidia_pytriton.libs"
    assert (stub.folder / "libraries").read_text() == f"{libraries}\n"
    serve(*GIVEN, LD_LIBRARY_PATH="/a:/b")
    assert (stub.folder / "libraries").read_text() == f"{libraries}:/a:/b\n"


@pytest.mark.parametrize("code", [0, 1, 75])
def test_it_ends_as_the_server_does_and_leaves_nothing(serve, here, code):
    assert serve(*GIVEN, SERVES=f"exit {code}").returncode == code
    assert list((here / "temporary").iterdir()) == []


def test_what_is_missing_is_said_with_what_to_do(serve, stub, here, environment):
    install = rf"the\ environment/bin/pip install -r {ROOT}/requirement-triton.txt"
    done = serve("nowhere", "my repository")
    expected = f"error: no folder nowhere: python3 -m venv nowhere && {install}\n".replace(
        r"the\ environment", "nowhere"
    )
    assert (done.returncode, done.stderr) == (1, expected)
    done = serve("the environment", "no repository")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: no repository is no repository, write one: env PYTHONPATH={ROOT} python -m tools.deploy.triton"
        r" -o no\ repository --backend=python" + "\n",
    )
    (here / "empty").mkdir()
    assert "error: empty is no repository" in serve("the environment", "empty").stderr
    (environment / "lib/site-packages/pytriton/tritonserver/bin/tritonserver").unlink()
    done = serve(*GIVEN)
    assert (done.returncode, done.stderr) == (1, f"error: {environment} has no nvidia-pytriton: {install}\n")
    assert not (stub.folder / "arguments").exists()
    assert list((here / "temporary").iterdir()) == []


LIVES = """trap 'sleep 0.05; echo ended >"$STUB_FOLDER/ended"; exit 5' TERM; touch "$STUB_FOLDER/ready"
while :; do sleep 0.02; done"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_first(stub, here, number):
    environment = stub.environment(TMPDIR=str(here / "temporary"), MODEL_PATH=str(here / "models"), SERVES=LIVES)
    process = subprocess.Popen(["bash", SCRIPT, *GIVEN], cwd=here, env=environment, preexec_fn=listen_to_signals)
    wait_for((stub.folder / "ready").exists, 60, process)
    process.send_signal(number)
    assert process.wait(60) == 5
    assert (stub.folder / "ended").exists() and list((here / "temporary").iterdir()) == []
