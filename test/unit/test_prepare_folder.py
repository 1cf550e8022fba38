"""tools/prepare_data.py: what its folder keeps from run to run, and what it takes for its own."""

import hashlib
import json
import os
from dataclasses import asdict, replace

import pytest

from common.program import UserError, WriteError
from tools.prepare import folder as module
from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures
from tools.prepare.folder import DONE, MARK, NEW, TEXTS, Folder, key_of, writing
from tools.prepare.sources import Item


@pytest.fixture
def item(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.wav").write_bytes(b"a recording")
    return Item(tmp_path / "source/a.wav", "Text.", "list line 1", name="a")


CLIP = ConvertedClip(Figures(form="WAV", seconds=2.5, clipped=3, fingerprint="80"), ["a step", "another"])


def make(path, *items, clip=CLIP, content=b"a clip", **facts):
    """A run that converts what is missing."""
    folder = Folder(path)
    folder.begin()
    for item in items:
        if not folder.find(item, Recipe()):
            (folder.new / f"{item.name}.wav").write_bytes(content)
            folder.add(item, Recipe(), clip)
    folder.finish({item.name: item for item in items}, facts)
    return folder


def test_what_is_written_is_found_with_all_that_is_known_of_it(item, tmp_path):
    make(tmp_path / "data", item)
    assert Folder(tmp_path / "data").find(item, Recipe()) == CLIP
    assert not (tmp_path / "data" / NEW).exists()
    (line,) = (tmp_path / "data" / f".{DONE}").read_text().splitlines()
    assert json.loads(line) == {"name": "a", "key": key_of(item, Recipe()), "bytes": 6, "clip": asdict(CLIP)}


def test_what_is_pending_goes_before_what_is_there(item, tmp_path):
    make(tmp_path / "data", item)
    newer = replace(CLIP, steps=["newer"])
    folder = Folder(tmp_path / "data")
    folder.begin()
    (folder.new / "a.wav").write_bytes(b"a newer clip")
    folder.add(item, Recipe(), newer)
    assert Folder(tmp_path / "data").find(item, Recipe()) == newer
    (folder.new / "a.wav").write_bytes(b"half")
    assert Folder(tmp_path / "data").find(item, Recipe()) == CLIP


def changed_recording(item):
    item.path.write_bytes(b"another recording")


def touched_recording(item):
    os.utime(item.path, ns=(1, 1))


def replaced_recording(item):
    """By one of the same size and time, in another folder."""
    stat = item.path.stat()
    (item.path.parent / "else").mkdir()
    item.path.rename(item.path.parent / "else/a.wav")
    item.path.symlink_to("else/a.wav")
    os.utime(item.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [changed_recording, touched_recording, replaced_recording])
def test_another_recording_is_not_found(item, tmp_path, change):
    make(tmp_path / "data", item)
    change(item)
    assert Folder(tmp_path / "data").find(item, Recipe()) is None


@pytest.mark.parametrize("name", [*asdict(Recipe())])
def test_nor_is_what_another_recipe_makes(item, tmp_path, name):
    make(tmp_path / "data", item)
    other = replace(Recipe(), **{name: getattr(Recipe(), name) / 2})
    assert Folder(tmp_path / "data").find(item, other) is None
    assert Folder(tmp_path / "data").find(replace(item, name="b"), Recipe()) is None


def test_a_new_form_makes_all_again(item, tmp_path, monkeypatch):
    make(tmp_path / "data", item)
    monkeypatch.setattr(module, "FORM", module.FORM + 1)
    assert Folder(tmp_path / "data").find(item, Recipe()) is None


def test_a_clip_that_was_cut_short_is_none(item, tmp_path):
    """As by a power cut in the middle of a run; in what is done it was changed by somebody."""
    folder = Folder(tmp_path / "data")
    folder.begin()
    (folder.new / "a.wav").write_bytes(b"a clip")
    folder.add(item, Recipe(), CLIP)
    for content in (b"a cli", b"a clip!"):
        (folder.new / "a.wav").write_bytes(content)
        assert Folder(tmp_path / "data").find(item, Recipe()) is None
    (folder.new / "a.wav").unlink()
    assert Folder(tmp_path / "data").find(item, Recipe()) is None


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "3", '{"name": "b"}', '{"name": "b", "clip": {"figures": {}}}', '{"name": "b", "clip": 3}']
)
def test_lines_of_a_list_that_are_damaged_or_of_another_version_are_ignored(item, tmp_path, line):
    make(tmp_path / "data", item)
    path = tmp_path / "data" / f".{DONE}"
    path.write_text(f"{line}\n{path.read_text()}{line}")
    assert Folder(tmp_path / "data").there.keys() == {"a"}


@pytest.mark.parametrize("change", [{"new_figure": 1.0}, {"seconds": None}])
def test_so_are_clips_with_other_figures(item, tmp_path, change):
    make(tmp_path / "data", item)
    path = tmp_path / "data" / f".{DONE}"
    entry = json.loads(path.read_text())
    figures = entry["clip"]["figures"] | change
    entry["clip"]["figures"] = {name: value for name, value in figures.items() if value is not None}
    path.write_text(json.dumps(entry))
    (tmp_path / "data/wavs/a.wav").unlink()
    assert Folder(tmp_path / "data").there == {}


def test_metadata_and_mark_say_what_the_data_set_is(item, tmp_path):
    other = replace(item, name="b", text=None)
    make(tmp_path / "data", item, other, made="so", source="there")
    assert (tmp_path / "data" / TEXTS).read_text() == "a|Text.\n"
    first = hashlib.sha256(b"a|Text.\n").hexdigest()
    mark = json.loads((tmp_path / "data" / MARK).read_text())
    assert mark == {"metadata_sha256": [first], "made": "so", "source": "there"}
    for text in ("Grüße.", "Third."):  # the last two are known: a run that is killed leaves one of them
        make(tmp_path / "data", replace(item, text=text))
    sums = [hashlib.sha256(f"a|{text}\n".encode()).hexdigest() for text in ("Third.", "Grüße.")]
    assert json.loads((tmp_path / "data" / MARK).read_text())["metadata_sha256"] == sums
    for text, is_own in (("Third.", True), ("Grüße.", True), ("Text.", False)):
        (tmp_path / "data" / TEXTS).write_text(f"a|{text}\n")
        if is_own:
            Folder(tmp_path / "data")
        else:
            with pytest.raises(UserError, match=r"metadata\.csv was changed since this program wrote it"):
                Folder(tmp_path / "data")


def test_clips_that_are_gone_from_the_source_are_gone(item, tmp_path):
    make(tmp_path / "data", item, replace(item, name="b"))
    make(tmp_path / "data", replace(item, name="b"))
    assert [path.name for path in (tmp_path / "data/wavs").iterdir()] == ["b.wav"]
    assert Folder(tmp_path / "data").there.keys() == {"b"}


@pytest.mark.parametrize(("name", "is_own"), [("a.wav", True), ("a.txt", False), ("b.wav", False), (".hidden", True)])
def test_what_is_in_wavs_is_its_own_or_nobody_s(item, tmp_path, name, is_own):
    make(tmp_path / "data", item)
    (tmp_path / "data/wavs" / name).write_bytes(b"a clip")  # of the same size
    if is_own:
        Folder(tmp_path / "data")
    else:
        with pytest.raises(UserError, match=f"wavs/{name} was not made by this program, or changed since"):
            Folder(tmp_path / "data")


def test_leftovers_of_a_killed_run_go(item, tmp_path):
    make(tmp_path / "data", item)
    (tmp_path / "data" / NEW).mkdir()
    left = [tmp_path / "data/.index.html.1.part", tmp_path / "data" / NEW / ".a.wav.1.part"]
    for path in left:
        path.write_bytes(b"half")
    Folder(tmp_path / "data").begin()
    assert not any(path.exists() for path in left)


def test_a_mark_that_is_there_stays_until_the_end(item, tmp_path):
    make(tmp_path / "data", item, made="so")
    before = (tmp_path / "data" / MARK).read_bytes()
    Folder(tmp_path / "data").begin()
    assert (tmp_path / "data" / MARK).read_bytes() == before


def test_what_the_system_refuses_names_the_file(tmp_path):
    with pytest.raises(WriteError) as error, writing(tmp_path):
        raise OSError(28, "No space left on device", "/there/a.wav")
    assert (error.value.errno, error.value.filename) == (28, "/there/a.wav")
    with pytest.raises(WriteError) as error, writing(tmp_path):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path)


def test_a_recording_that_is_gone_has_no_key(item):
    item.path.unlink()
    assert key_of(item, Recipe()) == ""
