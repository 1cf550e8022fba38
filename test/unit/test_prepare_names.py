"""tools/prepare_data.py: which audio file a name in a list means, and what a clip is called in the data set."""

import pytest

from common.program import UserError
from tools.prepare.audio_files import ENDINGS, AudioFiles, is_audio, parts_of, walk, without_ending
from tools.prepare.problems import Kind
from tools.prepare.sources import Item, find_source, tidy
from tools.prepare.sources import _named as named


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


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
def test_what_a_name_means(tmp_path, name):
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


def test_what_becomes_of_signs():
    assert tidy(" a\tb\u2028c\n|d ") == "a b c d"
    assert tidy("e\u0301\x07\u200e") == "\u00e9"
    assert tidy("a\u200db") == "a\u200db"


def test_of_one_audio_the_same_text_twice_is_one_and_two_texts_are_none(tmp_path):
    touch(tmp_path, "wavs/a.wav", "wavs/b.wav")
    (tmp_path / "metadata.csv").write_text("a|One.\nb|Two.\nwavs/a.wav|One.\nb.wav|Three.\n")
    source = find_source(tmp_path)
    assert [(item.name, item.where.rpartition(" ")[2]) for item in source.items] == [("a", "1")]
    (problem,) = source.problems
    assert problem.kind is Kind.DOUBTFUL
    assert problem.message.endswith(
        "b.wav has 2 texts: " + ", ".join(f"{tmp_path}/metadata.csv line {i}" for i in (2, 4))
    )


def test_facts_say_how_a_list_was_understood(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    path = tmp_path / "metadata.csv"
    for content, how in (
        ("a|One.\nb|Two.", "UTF-8, columns split at '|': name, text"),
        ("a|One.\r\nb|Two.\r\n", "UTF-8, CRLF, columns split at '|': name, text"),
        ("a\tOne.\nb\tTwo.", "UTF-8, columns split at tabs: name, text"),
        ('"a","One, 1."\n"b","Two."', "UTF-8, columns split at ',', quoted: name, text"),
        ("a\nb", "UTF-8, no columns: name"),
    ):
        path.write_bytes(content.encode())
        assert find_source(tmp_path).facts == [f"{path}: 2 lines, {how}"]
    path.write_bytes("a|One.\r\nb|Twö.".encode("utf-16-le"))
    assert find_source(tmp_path).facts == [
        f"{path}: 2 lines, UTF-16-LE by its bytes, CRLF, columns split at '|': name, text"
    ]
    path.write_bytes("a|One.\nb|Two.".encode("utf-8-sig"))
    assert "2 lines, UTF-8 with a byte order mark, columns" in find_source(tmp_path).facts[0]
    assert "2 lines, UTF-8-SIG, columns" not in find_source(tmp_path).facts[0]
    path.write_bytes("a|One.\nb|Zwölf.".encode("cp1252"))
    assert "2 lines, CP1252, columns" in find_source(tmp_path, encoding="cp1252").facts[0]


def test_a_line_with_too_few_columns_names_its_audio_if_it_can(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "metadata.csv").write_text("1|a|One text.\n2|b|Two texts.\n3\n4|c\n")
    source = find_source(tmp_path, columns="-,name,text")
    said = [problem.message.rpartition("/")[2] for problem in source.problems]
    assert said == ["metadata.csv line 3 has 1 columns, most have 3", "metadata.csv line 4 has 2 columns, most have 3"]


def test_a_text_elsewhere_belongs_to_a_clip_if_there_is_one(tmp_path):
    touch(tmp_path, "wavs/a.wav", "wavs/b.wav", "wavs/c.wav")
    for name in ("texts/a.txt", "texts/b.lab", "more/b.txt", "wavs/c.txt", "texts/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"Text of {name}.")
    source = find_source(tmp_path)
    assert {item.name: item.text for item in source.items} == {"a": "Text of texts/a.txt.", "c": "Text of wavs/c.txt."}
    (problem,) = source.problems
    assert (problem.kind, problem.message.endswith("b.wav: there is no b.txt for it")) == (Kind.UNUSED, True)
    assert source.facts == [f"{tmp_path}: 2 pairs of audio and text"]


@pytest.mark.parametrize(("encoding", "said"), [("", ", WINDOWS-1251 by the bytes of all"), ("koi8-r", ", KOI8-R")])
def test_pairs_in_an_encoding_that_is_guessed_or_said(tmp_path, encoding, said):
    texts = ["Съешь же ещё этих булок.", "Широкая река."]
    for name, text in zip("ab", texts, strict=True):
        touch(tmp_path, f"{name}.wav")
        (tmp_path / f"{name}.txt").write_bytes(text.encode(encoding or "cp1251"))
    source = find_source(tmp_path, encoding=encoding)
    assert [item.text for item in source.items] == texts
    assert source.facts[0].endswith("2 pairs of audio and text" + said)


def test_each_line_and_file_that_cannot_be_used_is_of_its_kind(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "one/c.wav", "two/c.wav", "left.wav")
    long = "n" * 120
    (tmp_path / "metadata.csv").write_text(f"a|One.\n{long}|Two.\nc|Three.\nb|Four.|more\n")
    source = find_source(tmp_path)
    kinds = [(problem.kind.name, problem.message.replace(str(tmp_path), "T")) for problem in source.problems]
    assert kinds[:3] == [
        ("NO_AUDIO", f"T/metadata.csv line 2: there is no audio file {long[:100]}"),
        ("DOUBTFUL", "T/metadata.csv line 3: c may be 2 files: T/one/c.wav, T/two/c.wav"),
        ("DOUBTFUL", "T/metadata.csv line 4 has 3 columns, most have 2"),
    ]
    unused = [f"T/{name}.wav: no list has a line for it" for name in ("left", "one/c", "two/c")]
    assert sorted(kinds[3:]) == [("UNUSED", each) for each in unused]
    assert all(problem.left_out for problem in source.problems)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ([], ""), (["notes.md"], ""), (["x.csv"], "; if {0}/x.csv has the texts, name it in place of the folder"),
        (["b.json", "a.tsv", "d/c.txt", "e.txt"],
         "; if {0}/a.tsv, {0}/b.json, {0}/e.txt has the texts, name it in place of the folder"),
    ],
)  # fmt: skip
def test_audio_alone_may_have_its_texts_in_a_list_of_another_name(tmp_path, names, hint):
    touch(tmp_path, "wavs/a.wav", "wavs/b.wav", *names)
    source = find_source(tmp_path)
    assert [(item.name, item.text, item.where) for item in source.items] == [
        (name, None, f"{tmp_path}/wavs/{name}.wav") for name in "ab"
    ]
    assert source.facts == [f"{tmp_path}: 2 audio files alone" + hint.format(tmp_path)]
