"""tools/prepare_data.py: which audio file a name in a list means, and what a clip is called in the data set."""

import pytest

from common.program import UserError
from conftest import touch
from tools.prepare.audio_files import ENDINGS, AudioFiles, is_audio, parts_of, walk, without_ending
from tools.prepare.sources import Item, tidy
from tools.prepare.sources import _named as named


def found(root, name):
    return [str(path.relative_to(root)) for path in AudioFiles(root).find(name)]


def test_a_folder_is_walked_in_the_order_of_names_without_what_systems_put_there(tmp_path):
    root = touch(tmp_path, "b/y.wav", "b/x.txt", "a.wav", ".hidden/c.wav", "__MACOSX/a.wav", "b/._y.wav", "c/z.wav")
    (root / "d").symlink_to(root / "c")
    assert [str(path.relative_to(root)) for path in walk(root)] == ["a.wav", "b/x.txt", "b/y.wav", "c/z.wav"]
    touch(tmp_path / "else", "far.wav")
    (root / "b/link").symlink_to(tmp_path / "else")
    assert root / "b/link/far.wav" in walk(root)
    with pytest.raises(UserError, match=r"cannot read the folder .*nothing: No such file"):
        list(walk(root / "nothing"))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.wav", "a"), ("a.b.WAV", "a.b"), ("Mr. Hill", "Mr. Hill"), ("a.txt", "a.txt"), ("a", "a"),
        ("a.wav.mp3", "a.wav"),
    ],
)  # fmt: skip
def test_only_the_ending_of_an_audio_file_is_none_of_its_name(name, stem):
    assert without_ending(name) == stem


def test_paths_of_all_systems_are_compared_part_by_part():
    assert parts_of(r"C:\Data\..\wavs\A.wav") == parts_of("c:/data/./wavs//a.wav") == ["c:", "data", "wavs", "a.wav"]


def test_audio_is_known_by_its_ending_in_any_case(tmp_path):
    assert all(is_audio(tmp_path / f"a{ending}") and is_audio(tmp_path / f"a{ending.upper()}") for ending in ENDINGS)
    assert not is_audio(tmp_path / "a.txt")
    assert not is_audio(tmp_path / "wav")
    assert ENDINGS[:2] == (".wav", ".flac")


NAMES = {
    "one/a.wav": ["one/a.wav"],  # as it is
    "one/a": ["one/a.wav"],
    "/elsewhere/one/a.flac": ["one/a.wav"],
    "ONE/A.WAV": ["one/a.wav"],
    r"..\two\a.wav": ["two/a.wav"],
    "x/y/two/a": ["two/a.wav"],  # as many of its folders as are known here
    "three/a": ["one/a.wav", "two/a.wav"],  # none of these
    "a": ["one/a.wav", "two/a.wav"],
    "deep/one/b": ["deep/one/b.wav"],
    "one/b": ["deep/one/b.wav", "one/b.wav"],  # both end so; the one beside the list is the path itself only with .wav
    "one/b.wav": ["one/b.wav"],
    "case": ["Case.wav"],
    "twin": ["twin.wav"],  # rather than TWIN.wav
    "Twin": ["TWIN.wav", "twin.wav"],
    "both": ["both.wav"],  # rather than what was made of it
    "both.mp3": ["both.mp3"],
    "nothing": [],
    "": [],
    "..": [],
    "one": [],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_the_file_whose_path_ends_like_it(tmp_path, name):
    root = touch(
        tmp_path, "one/a.wav", "two/a.wav", "deep/one/b.wav", "one/b.wav", "Case.wav", "twin.wav", "TWIN.wav",
        "both.mp3", "both.wav", "both.flac",
    )  # fmt: skip
    assert sorted(found(root, name)) == sorted(NAMES[name])


def test_the_better_ending_is_taken_in_each_folder_for_itself(tmp_path):
    root = touch(tmp_path, "one/a.mp3", "one/a.flac", "two/a.ogg")
    assert sorted(found(root, "a")) == ["one/a.flac", "two/a.ogg"]


def test_a_path_that_is_one_by_itself_needs_no_folder(tmp_path, monkeypatch):
    """Absolute, or from where the user stands, as NVIDIA's lists are."""
    touch(tmp_path, "there/wavs/a.wav", "here/b.wav")
    monkeypatch.chdir(tmp_path / "there")
    files = AudioFiles(tmp_path / "here")
    assert [str(path) for path in files.find("wavs/a.wav")] == ["wavs/a.wav"]
    assert files.find(str(tmp_path / "there/wavs/a.wav")) == [tmp_path / "there/wavs/a.wav"]
    assert files.find("wavs/b.wav") == [tmp_path / "here/b.wav"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["b.wav", "a.wav"], ["a", "b"]),  # in the order of the names
        (["x/a.wav", "y/a.wav", "y/b.wav"], ["b", "x_a", "y_a"]),  # folders only where they are needed
        (["a.wav", "x/A.wav"], ["a", "x_A"]),  # names differ by more than case; the root has none
        (["a.wav", "a.WAV"], ["a_wav", "a_WAV_2"]),
        (["a.wav", "a.mp3"], ["a_mp3", "a_wav"]),
        (["x/a.wav", "y/a.wav", "x_a.wav"], ["x_a_wav", "x_a_wav_2", "y_a"]),
        (["a|b.wav", "..c.wav", " d .wav", "e\\f\n.wav"], ["a_b", "c", "d", "e_f_"]),
        ([".wav"], ["clip"]),
        (["u\u0308.wav"], ["\u00fc"]),
    ],
)  # fmt: skip
def test_clips_have_names_of_their_own(tmp_path, paths, names):
    items = named([Item(tmp_path / path, None, "") for path in paths])
    assert sorted(item.name for item in items) == sorted(names)
    assert [item.name for item in items] == sorted(item.name for item in items)
    assert sorted(item.path for item in items) == sorted(tmp_path / path for path in paths)


def test_control_signs_become_blanks_or_nothing():
    assert tidy(" a\tb\u2028c\n|d ") == "a b c d"
    assert tidy("e\u0301\x07\u200e") == "\u00e9"
    assert tidy("a\u200db") == "a\u200db"
