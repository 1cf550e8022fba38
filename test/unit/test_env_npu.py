"""What an Ascend server needs: test/env_npu.sh finds CANN wherever it is, and keeps what the user has set."""

import os
import subprocess

import pytest
from stub_python import StubPython

from conftest import ROOT, write_programs

SHOW = 'source "$1/test/env_npu.sh"; echo "found=${FOUND:-}"; env'


def source(script: str, home: str = "", **environment: str) -> dict[str, str]:
    """The environment behind a script that sources env_npu.sh."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND", "HCCL"))}
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail; {script}", "-", ROOT],
        env=own | environment | {"ASCEND_HOME_PATH": home}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def add_set_env(folder) -> None:
    """As CANN's: it reads variables that are not set."""
    folder.mkdir(parents=True)
    (folder / "set_env.sh").write_text(f"export FOUND='{folder}'; NEVER=$NEVER_SET\n")


@pytest.mark.parametrize("layout", ["cann", "ascend-toolkit", "nnae", "."])
def test_every_layout_of_cann_is_found(tmp_path, layout):
    home = tmp_path / "Ascend"
    add_set_env(home / layout)
    (home / "ascend-toolkit/latest").mkdir(parents=True)
    assert source(SHOW, str(home))["found"] == str(home / layout)


def test_the_newest_layout_comes_first_and_an_uninstalled_toolkit_does_not_count(tmp_path):
    for layout in ("ascend-toolkit", "nnae"):
        add_set_env(tmp_path / layout)
    assert source(SHOW, str(tmp_path))["found"] == str(tmp_path / "nnae")
    (tmp_path / "ascend-toolkit/latest").mkdir()
    assert source(SHOW, str(tmp_path))["found"] == str(tmp_path / "ascend-toolkit")
    add_set_env(tmp_path / "cann")
    assert source(SHOW, str(tmp_path))["found"] == str(tmp_path / "cann")


def test_the_folder_that_cann_itself_names_is_enough(tmp_path):
    """Of 8.5 and later that with the script, of older ones the one below it."""
    for home in (tmp_path / "cann-8.5.0", tmp_path / "ascend-toolkit/latest"):
        add_set_env(home if "cann" in home.name else home.parent)
        home.mkdir(exist_ok=True)
        found = source(SHOW, str(home))
        assert os.path.realpath(found["found"]) == str(home if "cann" in home.name else home.parent)
        assert found["COMBINED_ENABLE"] == "1"


@pytest.fixture
def elsewhere(tmp_path):
    """The script with other folders in the place of the system's; a function that sources it: where it found CANN."""
    script = (ROOT / "test/env_npu.sh").read_text()
    for path in ("/etc/Ascend/", "/usr/local/Ascend"):
        assert script.count(path) == 1
        script = script.replace(path, f"{tmp_path}{path}")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/env_npu.sh").write_text(script)

    def found(command=SHOW, home=""):
        return source(command.replace("$1", str(tmp_path)), home, HOME=str(tmp_path / "home"))

    return found


@pytest.mark.parametrize(
    ("note", "key"),
    [
        ("ascend_cann_install.info", "Install_Path"),
        ("ascend_toolkit_install.info", "Install_Path"),
        ("ascend_nnae_install.info", "Install_Path"),
        ("ascend_cann_install.info", "Toolkit_InstallPath"),
    ],
)
def test_a_folder_that_an_installer_noted_is_found(elsewhere, tmp_path, note, key):
    home = tmp_path / "opt/my Ascend"
    add_set_env(home / "nnae")
    (tmp_path / "etc/Ascend").mkdir(parents=True)
    (tmp_path / "etc/Ascend" / note).write_text(f"package_name=Ascend\n{key}={home}\r\n")
    assert elsewhere()["found"] == str(home / "nnae")


def test_cann_is_looked_for_in_an_order(elsewhere, tmp_path):
    """In the folder that it names itself, in the user's own, in those that were noted, and in the usual one."""
    places = ["usr/local/Ascend", "noted", "home/Ascend", "named"]
    for place in places:
        add_set_env(tmp_path / place / "cann")
        if place == "noted":
            (tmp_path / "etc/Ascend").mkdir(parents=True)
            (tmp_path / "etc/Ascend/ascend_any_install.info").write_text(f"Install_Path={tmp_path}/noted\n")
        home = str(tmp_path / "named") if place == "named" else ""
        assert elsewhere(home=home)["found"] == str(tmp_path / place / "cann")


def test_all_places_are_said_where_there_is_none(elsewhere, tmp_path):
    (tmp_path / "etc/Ascend").mkdir(parents=True)
    (tmp_path / "etc/Ascend/ascend_any_install.info").write_text("Install_Path=noted\n")
    for home in ("", "/named"):
        said = elsewhere('echo "said=$(source "$1/test/env_npu.sh")"', home)["said"]
        places = f"{tmp_path}/home/Ascend noted {tmp_path}/usr/local/Ascend"
        named = f"{home} " if home else ""
        assert said == (f"env_npu.sh: no CANN in {named}{places}, nothing set (not needed on CUDA or a CPU)")


def test_what_a_user_who_is_not_root_has_installed_is_found(tmp_path):
    add_set_env(tmp_path / "Ascend/cann")
    assert source(SHOW, HOME=str(tmp_path))["found"] == str(tmp_path / "Ascend/cann")
    assert "found" in source(f"unset HOME; {SHOW}")


def test_what_the_user_has_set_stays(tmp_path):
    add_set_env(tmp_path / "cann")
    found = source(SHOW, str(tmp_path), TASK_QUEUE_ENABLE="0", HCCL_EXEC_TIMEOUT="300")
    assert (found["TASK_QUEUE_ENABLE"], found["HCCL_EXEC_TIMEOUT"]) == ("0", "300")
    assert found["COMBINED_ENABLE"] == "1"
    assert "HCCL_CONNECT_TIMEOUT" not in found  # common/distributed.py sets it


@pytest.mark.parametrize("options", ["set -f", "shopt -s failglob", "shopt -s nullglob", "IFS=/a"])
def test_whatever_options_the_callers_shell_has_it_goes_on(tmp_path, options):
    """Its own that end it at any error, besides."""
    add_set_env(tmp_path / "my Ascend/cann")
    assert source(f"{options}; {SHOW}", str(tmp_path / "my Ascend"))["found"] == str(tmp_path / "my Ascend/cann")


def test_env_npu_leaves_a_shell_without_cann_as_it_was(elsewhere, tmp_path):
    script = (
        "set -euo pipefail; env | sort >before; shopt -po >options;"
        ' source "$1/test/env_npu.sh"; source "$1/test/env_npu.sh";'
        " env | sort >after; shopt -po | diff options -; diff before after; echo alive"
    )
    done = subprocess.run(
        ["bash", "-c", script, "-", str(tmp_path)],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[-1] == "alive"
    assert done.stdout.count("no CANN in") == 2


DEFAULTS = {
    "ASCEND_SLOG_PRINT_TO_STDOUT": "0", "ASCEND_GLOBAL_LOG_LEVEL": "3", "ASCEND_GLOBAL_EVENT_ENABLE": "0",
    "TASK_QUEUE_ENABLE": "1", "COMBINED_ENABLE": "1", "INF_NAN_MODE_ENABLE": "1", "HCCL_WHITELIST_DISABLE": "1",
}  # fmt: skip


@pytest.fixture
def stub(tmp_path):
    return StubPython(tmp_path / "a stub")


@pytest.fixture
def ascend(stub):
    """A function that sources env_npu.sh beside a CANN, and then runs a command: its output."""
    (stub.folder / "Ascend/cann").mkdir(parents=True)
    (stub.folder / "Ascend/cann/set_env.sh").write_text("true ${NEVER_SET}\n${CANN_DOES:-true}\n")

    def source(command, **changes):
        done = stub.run("-c", f'{command[0]}; source "$1/test/env_npu.sh"; {command[1]}', "-", str(ROOT), **changes)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return source


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_ascend_is_set_to_and_what_the_user_has_set(ascend, name):
    unset = dict.fromkeys(DEFAULTS)
    assert ascend(("set -eu", f"echo ${name}"), **unset) == [DEFAULTS[name]]
    assert ascend(("set -eu", f"echo ${name}"), **unset | {name: "7"}) == ["7"]


@pytest.mark.parametrize(("options", "flags"), [("set -u", "u"), ("set +u", "")])
def test_the_shell_s_own_option_is_as_it_was(ascend, options, flags):
    assert ascend((options, 'case $- in *u*) echo u;; *) echo "";; esac')) == [flags]
    assert ascend(("set -e", "declare -F _env_npu_setup || echo gone")) == ["gone"]


def test_a_cann_whose_script_fails_is_told_and_does_not_end_the_shell(ascend, stub):
    (said, alive) = ascend(("set -eu", "echo alive"), CANN_DOES="false")
    assert (said, alive) == (f"env_npu.sh: {stub.folder}/Ascend/cann/set_env.sh reported an error", "alive")


def test_the_drivers_of_all_eight_cards_log_errors_alone(ascend, stub):
    write_programs(stub.folder / "bin", {"msnpureport": '#!/bin/bash\necho "$*" >>"$STUB_FOLDER/reports"\nexit 1\n'})
    assert ascend(("set -e", "echo alive")) == ["alive"]
    reports = (stub.folder / "reports").read_text().splitlines()
    assert reports == [*(f"-g error -d {card}" for card in range(8)), "-e disable"]


@pytest.mark.parametrize("ends", ["true", "false"])
def test_many_files_may_be_open_where_that_is_allowed(ascend, ends):
    assert ascend((f"set -e; ulimit() {{ echo ulimit $*; {ends}; }}", "echo alive")) == ["ulimit -SHn 512000", "alive"]
