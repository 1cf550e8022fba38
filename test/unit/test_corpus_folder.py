"""The folder of a corpus: what it holds from run to run, and with which settings it can go on."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from common.audio import write_wav
from common.program import UserError
from conftest import RATE
from tools.corpus.folder import Folder, Settings

SETTINGS = Settings("fake", "1.0", "alto", 7, -60.0, "0f")
TEXTS = {1: "One.", 2: "Two.", 10: "Ten."}
AUDIO = (0.3 * np.sin(np.arange(RATE) / 10)).astype(np.float32)


def test_what_is_made_is_found_again(tmp_path):
    folder = Folder(tmp_path / "c", SETTINGS, TEXTS)
    assert (folder.lengths, folder.seconds) == ({}, 0)
    folder.add(10, AUDIO)
    folder.add(2, AUDIO[: RATE // 2])
    assert (folder.lengths, folder.seconds) == ({10: RATE, 2: RATE // 2}, 1.5)
    assert [path.name for path in sorted((tmp_path / "c/wavs").iterdir())] == ["fake-000002.wav", "fake-000010.wav"]
    again = Folder(tmp_path / "c", SETTINGS, TEXTS)
    assert (again.lengths, again.seconds) == ({2: RATE // 2, 10: RATE}, 1.5)
    assert Folder(tmp_path / "c", SETTINGS, {2: "Two."}).lengths == {2: RATE // 2}


def test_lines_stand_by_their_numbers(tmp_path):
    folder = Folder(tmp_path / "c", SETTINGS, TEXTS)
    for number in (10, 1):
        folder.add(number, AUDIO)
    folder.write_metadata()
    assert (tmp_path / "c/metadata.csv").read_text() == "fake-000001|One.\nfake-000010|Ten.\n"


def test_a_folder_says_how_it_was_made(tmp_path):
    folder = Folder(tmp_path / "c", SETTINGS, TEXTS)
    assert json.loads((tmp_path / "c/corpus.json").read_text()) == {"settings": asdict(SETTINGS)}
    folder.describe({"clips": 3})
    assert json.loads((tmp_path / "c/corpus.json").read_text()) == {"settings": asdict(SETTINGS), "clips": 3}
    Folder(tmp_path / "c", SETTINGS, TEXTS)
    assert json.loads((tmp_path / "c/corpus.json").read_text())["clips"] == 3


@pytest.mark.parametrize("name", [*asdict(SETTINGS)])
def test_each_setting_decides_what_the_clips_are(tmp_path, name):
    Folder(tmp_path / "c", SETTINGS, TEXTS)
    value = getattr(SETTINGS, name)
    other = replace(SETTINGS, **{name: value + ("x" if isinstance(value, str) else 1)})
    path = tmp_path / "c/corpus.json"
    before = path.read_bytes()
    told = f"c was made with {name} {value}, which is {getattr(other, name)} now: go on with the same options, or take"
    with pytest.raises(UserError, match=told.replace("-", r"\-")):
        Folder(tmp_path / "c", other, TEXTS)
    assert path.read_bytes() == before
    facts = json.loads(path.read_text())
    del facts["settings"][name]
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=f"c was made with {name} None"):
        Folder(tmp_path / "c", SETTINGS, TEXTS)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"settings": 3}'])
def test_a_damaged_description_is_said(tmp_path, content):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/corpus.json").write_text(content)
    with pytest.raises(UserError, match=r"corpus\.json is damaged: take another folder, or delete this one"):
        Folder(tmp_path / "c", SETTINGS, TEXTS)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "c").mkdir()
    Folder(tmp_path / "c", SETTINGS, TEXTS)  # an empty one is taken
    (tmp_path / "d").mkdir()
    (tmp_path / "d/metadata.csv").write_text("mine")
    with pytest.raises(
        UserError, match=r"d holds files, but no corpus\.json: it was not made by this program; take an"
    ):
        Folder(tmp_path / "d", SETTINGS, TEXTS)
    assert (tmp_path / "d/metadata.csv").read_text() == "mine"
    assert not (tmp_path / "d/corpus.json").exists()


def test_damaged_clips_and_leftovers_are_none(tmp_path):
    folder = Folder(tmp_path / "c", SETTINGS, TEXTS)
    for number in TEXTS:
        folder.add(number, AUDIO)
    path = folder.wav(2)
    path.write_bytes(path.read_bytes()[:-10])
    write_wav(folder.wav(10), AUDIO, 16000)  # of another rate
    left = tmp_path / "c/wavs/.fake-000001.wav.1.part"
    left.write_bytes(b"RIFF")
    assert Folder(tmp_path / "c", SETTINGS, TEXTS).lengths == {1: RATE}
    assert not left.exists()
