"""Signals to the scripts of test/: each reaches the program as SIGTERM, and tells in the script's code what it was."""

import shutil
import signal
import subprocess

import pytest
from running_programs import listen_to_signals, wait_for
from stub_python import StubPython

from conftest import ROOT, write_programs

PROGRAM = """
trap 'echo "ended by TERM" >>"$STUB_FOLDER/ended"; exit ${CODE:-0}' TERM
touch "$STUB_FOLDER/ready"
while :; do sleep 0.02; done
"""


@pytest.fixture
def signalled(tmp_path):
    """Start a script, send it a signal when its program runs, and wait: code, what is said, what the program got."""
    stub = StubPython(tmp_path / "a stub")

    def run(number, *options, does=PROGRAM, **changes):
        for name in ("ready", "ended"):
            (stub.folder / name).unlink(missing_ok=True)
        process = subprocess.Popen(
            ["bash", ROOT / "test/train_full_8p.sh", "--data_path=/data", "--output_directory=/out", *options],
            env=stub.environment(DOES=does, **changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=listen_to_signals,
        )  # fmt: skip
        wait_for((stub.folder / "ready").exists, 60, process)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
        ended = stub.folder / "ended"
        return process.returncode, errors, ended.read_text().splitlines() if ended.exists() else []

    return run


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGTERM, 0)],
)
def test_each_signal_ends_the_program_and_tells_what_it_was(signalled, number, code):
    """A scheduler's SIGTERM is no failure, if the program makes none of it."""
    assert signalled(number, "--nproc=1") == (code, "", ["ended by TERM"])


def test_how_the_program_ends_is_told_behind_sigterm(signalled):
    assert signalled(signal.SIGTERM, "--nproc=1", CODE="3")[0] == 3


@pytest.mark.parametrize("kernel_tells", [True, False])
def test_of_several_processes_the_ranks_get_it_and_not_the_launcher(signalled, tmp_path, kernel_tells):
    """Which would kill them half a minute later. Not every kernel has the list of a process's children."""
    if not kernel_tells:
        if not shutil.which("pgrep"):
            pytest.skip("pgrep is not installed")
        cat = f'#!/bin/bash\n[[ $1 != /proc/* ]] || exit 1\nexec {shutil.which("cat")} "$@"\n'
        write_programs(tmp_path / "a stub/bin", {"cat": cat})
    rank = """
if [[ ${IS_RANK:-} == 1 ]]; then
    trap 'echo "rank got TERM" >>"$STUB_FOLDER/ended"; exit 0' TERM
    touch "$STUB_FOLDER/ready"
    while :; do sleep 0.02; done
fi
trap 'echo "launcher got TERM" >>"$STUB_FOLDER/ended"' TERM
IS_RANK=1 "$0" "$@" &
wait $!
exit 0
"""
    code, _, ended = signalled(signal.SIGTERM, "--nproc=2", does=rank)
    assert (code, ended) == (0, ["rank got TERM"])


EARLY = """
set() {
    builtin set "$@"
    [[ $1 != -m ]] || kill -s "$EARLY" $$  # between the script's trap and its program's start
}
"""


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130)])
def test_a_signal_before_the_program_is_there_ends_it_too(tmp_path, name, code):
    stub = StubPython(tmp_path / "a stub")
    (stub.folder / "early").write_text(EARLY)
    command = ["bash", ROOT / "test/train_full_8p.sh", "--data_path=/d", "--output_directory=/o", "--nproc=1"]
    changes = {"BASH_ENV": str(stub.folder / "early"), "EARLY": name, "DOES": "sleep 30"}
    done = subprocess.run(command, env=stub.environment(**changes), preexec_fn=listen_to_signals, timeout=60)
    assert done.returncode == code
