"""test/data/make_corpus.sh, with stand-ins for flite and sox: the corpus that is there is what it makes."""

import os
import subprocess

import pytest

from conftest import ROOT, write_programs

FLITE = """#!/bin/bash
printf 'flite %s|' "$1" "$2" "$3" "$5" "$6" >>"$NOTES"
echo >>"$NOTES"
[[ -z ${FAILS:-} ]] || exit 1
printf '%s' "$4" >"$6"
"""
SOX = """#!/bin/bash
echo "sox $*" >>"$NOTES"
cp "$2" "$7"
"""


@pytest.fixture
def make(tmp_path):
    """Runs a copy of the script from elsewhere; how it ended, and what it asked for."""
    write_programs(tmp_path / "bin", {"flite": FLITE, "sox": SOX})
    (tmp_path / "a folder/corpus").mkdir(parents=True)
    (tmp_path / "a folder/corpus/old").write_text("of an earlier run")
    (tmp_path / "a folder/make_corpus.sh").write_text((ROOT / "test/data/make_corpus.sh").read_text())
    own = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}

    def run(**changes):
        done = subprocess.run(
            ["bash", "a folder/make_corpus.sh"],
            cwd=tmp_path, env=os.environ | own | changes, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done, (tmp_path / "notes").read_text().splitlines()

    return run


def test_the_corpus_that_is_there_is_what_it_makes(make, tmp_path):
    done, notes = make()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("24 clips, ")
    made, there = tmp_path / "a folder/corpus", ROOT / "test/data/corpus"
    assert sorted(path.name for path in made.iterdir()) == ["metadata.csv", "wavs"]
    assert (made / "metadata.csv").read_text() == (there / "metadata.csv").read_text()
    lines = [line.split("|") for line in (there / "metadata.csv").read_text().splitlines()]
    # What is spoken is the text with its numbers in words, the last column.
    assert {path.stem: path.read_text() for path in (made / "wavs").iterdir()} == {
        name: said for name, _, said in lines
    }
    assert {path.name for path in (made / "wavs").iterdir()} == {path.name for path in (there / "wavs").iterdir()}
    assert len(notes) == 2 * len(lines)
    for (name, *_), flite, sox in zip(lines, notes[::2], notes[1::2]):
        assert flite == f"flite -voice|flite slt|flite -t|flite -o|flite corpus/{name}.wav|"
        assert sox == (
            f"sox -R corpus/{name}.wav -r 22050 -b 16 corpus/wavs/{name}.wav"
            " silence 1 0.02 0.5% reverse silence 1 0.02 0.5% reverse pad 0.05 0.05 norm -3"
        )


def test_what_fails_ends_it(make):
    done, notes = make(FAILS="1")
    assert done.returncode == 1 and len(notes) == 1 and done.stdout == ""
