"""tools/speed/pack_for_card.sh, with pip and git that note how they are called and make what they should."""

import os
import subprocess

import pytest

from conftest import ROOT

PIP = '#!/bin/bash\necho "pip $*" >>"$NOTES"\nwhile [[ $1 != --dest ]]; do shift; done\ntouch "$2/librosa.whl"\n'
GIT = """#!/bin/bash
echo "git $*" >>"$NOTES"
case $1 in
    clone) [[ -z ${FAILS:-} ]] && mkdir -p "${@: -1}" ;;
    -C) [[ $3 != ls-files ]] || printf 'README.md\\0' ;;
esac
"""


@pytest.fixture
def pack(tmp_path):
    for name, text in {"python3": PIP, "git": GIT}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}

    def run(**environment):
        (tmp_path / "notes").write_text("")
        done = subprocess.run(
            ["bash", ROOT / "tools/speed/pack_for_card.sh", "a folder"],
            cwd=tmp_path, env=os.environ | path | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done, (tmp_path / "notes").read_text()

    return run


def test_all_that_the_session_needs_is_there_once(pack, tmp_path):
    done, notes = pack()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a folder/wheels/librosa.whl").is_file()
    assert sorted(each.name for each in (tmp_path / "a folder/peers").iterdir()) == ["tacotron2", "waveglow"]
    assert notes.count("clone") == 2 and f"--constraint {ROOT / 'requirement-corpus.txt'}" in notes
    assert done.stdout.splitlines()[-1] == "  bash tools/speed/card_session.sh a\\ folder OUT"
    assert "clone" not in pack()[1]


def test_a_clone_that_fails_leaves_no_half_checkout(pack, tmp_path):
    done, _ = pack(FAILS="1")
    assert done.returncode != 0
    assert not list((tmp_path / "a folder/peers").iterdir())


def test_wheels_are_for_the_machine_that_is_named(pack):
    _, notes = pack(PYTHON_VERSION="3.11", PLATFORM="manylinux2014_aarch64", PACKAGES="one two")
    assert "--python-version 3.11 --platform manylinux2014_aarch64" in notes and "one two\n" in notes
