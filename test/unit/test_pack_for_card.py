"""tools/speed/pack_for_card.sh, with pip and git that note how they are called and make what they should."""

import os
import subprocess

import pytest

from conftest import ROOT, write_programs

PIP = '#!/bin/bash\necho "pip $*" >>"$NOTES"\nwhile [[ $1 != --dest ]]; do shift; done\ntouch "$2/librosa.whl"\n'
GIT = """#!/bin/bash
echo "git $*" >>"$NOTES"
case $1,${3:-} in
    init,*) mkdir -p "${@: -1}/.git" ;;
    -C,fetch) [[ -z ${FAILS:-} ]] ;;
    -C,checkout) touch "$2/model.py" ;;
    -C,ls-files) printf 'README.md\\0' ;;
esac
"""


@pytest.fixture
def pack(tmp_path):
    write_programs(tmp_path / "bin", {"python3": PIP, "git": GIT})
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}

    def run(*arguments, **environment):
        (tmp_path / "notes").write_text("")
        own = {name: value for name, value in os.environ.items() if name not in ("PACKAGES", "PLATFORM")}
        done = subprocess.run(
            ["bash", ROOT / "tools/speed/pack_for_card.sh", *(arguments or ["a folder"])],
            cwd=tmp_path, env=own | path | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done, (tmp_path / "notes").read_text()

    return run


def test_all_that_the_session_needs_is_there_once(pack, tmp_path):
    done, notes = pack()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a folder/wheels/librosa.whl").is_file()
    peers = sorted((tmp_path / "a folder/peers").iterdir())
    assert [each.name for each in peers] == ["DeepLearningExamples", "tacotron2", "waveglow"]
    assert [path.name for each in peers for path in each.iterdir()] == ["model.py"] * 3  # and not git's own
    assert notes.count("git init") == 3 and f"--constraint {ROOT / 'requirement-corpus.txt'}" in notes
    first, command = done.stdout.splitlines()
    assert command == "  bash tools/speed/card_session.sh a\\ folder OUT"
    assert first.endswith(" MB. On the machine with the card:") and f" MB in {tmp_path}/a folder, " in first
    assert "git init" not in pack()[1]


def test_what_is_asked_for(pack, tmp_path):
    """Wheels for a usual machine that lacks what ours has besides PyTorch, at the versions that are pinned; and
    NVIDIA's code as docs/benchmark.md names it."""
    pip, *git = pack()[1].splitlines()
    lacks = (
        "librosa soundfile soxr inflect unidecode hibari-tts audioread lazy_loader pooch"
        " platformdirs decorator cffi pycparser more-itertools typeguard"
    )
    assert pip == (
        f"pip -m pip download --quiet --no-deps --only-binary=:all: --dest {tmp_path}/a folder/wheels"
        " --python-version 3.12 --platform=manylinux_2_28_x86_64 --platform=manylinux_2_17_x86_64"
        " --platform=manylinux2014_x86_64"
        f" --constraint {ROOT}/requirement.txt --constraint {ROOT}/requirement-corpus.txt {lacks}"
    )
    peers = f"{tmp_path}/a folder/peers"
    commits = {
        "waveglow": "8afb643df59265016af6bd255c7516309d675168",
        "tacotron2": "185cd24e046cc1304b4f8e564734d2498c6e2e6f",
        "DeepLearningExamples": "729963dd47e7c8bd462ad10bfac7a7b0b604e6dd",
    }
    models = "PyTorch/SpeechSynthesis/Tacotron2"
    sparse = f"sparse-checkout set {models}/tacotron2 {models}/tacotron2_common {models}/waveglow"
    expected = []
    for name, commit in commits.items():
        new = f"git -C {peers}/{name}.new"
        expected += [
            f"git init --quiet {peers}/{name}.new", f"{new} remote add origin https://github.com/NVIDIA/{name}",
            *[f"{new} {sparse}"] * (name == "DeepLearningExamples"),
            f"{new} fetch --quiet --depth 1 --filter=blob:none origin {commit}",
            f"{new} checkout --quiet FETCH_HEAD",
        ]  # fmt: skip
    assert git[: len(expected)] == expected
    assert all(commit[:7] in (ROOT / "docs/benchmark.md").read_text() for commit in commits.values())


def test_what_is_half_there_is_fetched_anew(pack, tmp_path):
    (tmp_path / "a folder/peers/waveglow.new/old").mkdir(parents=True)
    (tmp_path / "a folder/peers/tacotron2").mkdir()
    (tmp_path / "a folder/peers/DeepLearningExamples").mkdir()
    assert pack()[1].count("git init") == 1
    assert [path.name for path in (tmp_path / "a folder/peers/waveglow").iterdir()] == ["model.py"]


@pytest.mark.parametrize(("arguments", "code"), [(["-h"], 0), (["--help"], 0), (["x", "y"], 2)])
def test_help(pack, arguments, code):
    done, notes = pack(*arguments)
    assert (done.returncode, notes) == (code, "")
    assert done.stdout.startswith("Gather in one folder") and "#" not in done.stdout


def test_a_peer_that_cannot_be_had_leaves_no_half_checkout(pack, tmp_path):
    done, _ = pack(FAILS="1")
    assert done.returncode != 0
    assert [path.name for path in (tmp_path / "a folder/peers").iterdir()] == ["waveglow.new"]  # begun anew next time


def test_wheels_are_for_the_machine_that_is_named(pack):
    _, notes = pack(PYTHON_VERSION="3.11", PLATFORM="manylinux2014_aarch64", PACKAGES="one two")
    assert "--python-version 3.11 --platform=manylinux2014_aarch64 --constraint" in notes and "one two\n" in notes
