"""How clips and their lines are found by name: in a folder, in metadata.csv, in lists."""

import unicodedata
from pathlib import Path

import pytest

import tacotron2.data
from common.corpus import find_clips, read_transcripts
from common.program import UserError
from conftest import make_corpus


def rename(corpus, change):
    for path in sorted((corpus / "wavs").iterdir()):
        path.rename(path.with_name(change(path.name)))


def test_endings_in_capitals_and_names_of_other_systems(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=4)
    rename(corpus, lambda name: unicodedata.normalize("NFD", f"Übung {name[4:6]}.WAV"))
    (corpus / "wavs/._Übung 00.WAV").write_bytes(b"macOS")
    text = "".join(f"übung {i:02}|Text {'abcd'[i]}.\n" for i in range(4))
    (corpus / "metadata.csv").write_text(unicodedata.normalize("NFC", text))
    assert len(find_clips(str(corpus))) == 4
    training, held_back = tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))
    assert [clip.text for clip in held_back + training] == [f"Text {c}." for c in "abcd"]


def test_a_list_has_the_names_of_another_system(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=4)
    rename(corpus, lambda name: unicodedata.normalize("NFD", f"Übung {name[4:6]}.WAV"))
    (corpus / "wavs/übung 03.wav").write_bytes(b"")
    names = [unicodedata.normalize("NFC", f"wavs/übung {i:02}.wav") for i in range(4)]
    (corpus / "list.txt").write_text("".join(f"{name}|A tone.\n" for name in names))
    found = find_clips("", str(corpus / "list.txt"))
    assert found[:3] == sorted((corpus / "wavs").glob("*.WAV"))[:3]
    assert found[3] == corpus / names[3]  # exactly this one is there
    (corpus / "wavs/übung 03.wav").rename(corpus / "wavs/ÜBUNG 03.wav")
    assert find_clips("", str(corpus / "list.txt"))[3] == Path(names[3])  # it may be either
    training, held_back = tacotron2.data.find_utterances(
        tacotron2.data.DataConfig(training_files=str(corpus / "list.txt")), ""
    )
    assert [clip.path for clip in held_back + training][:3] == found[:3]


@pytest.mark.parametrize("listed", [str.lower, str.upper, str.title, lambda name: unicodedata.normalize("NFD", name)])
@pytest.mark.parametrize("there", [str.lower, str.upper])
def test_a_list_and_its_files_may_differ_in_case_or_accents(tmp_path, monkeypatch, listed, there):
    """Beside the list, or where the program was started."""
    path = tmp_path / "wavs" / there("übung.wav")
    path.parent.mkdir()
    path.write_bytes(b"")
    (tmp_path / "lists").mkdir()
    for folder in (tmp_path, tmp_path / "lists"):
        (folder / "list.txt").write_text(f"wavs/{listed('übung.wav')}\nwavs/other.wav\n")
    found = find_clips("", str(tmp_path / "list.txt"))
    assert found[0].samefile(path) and found[1:] == [Path("wavs/other.wav")]
    monkeypatch.chdir(tmp_path)
    assert find_clips("", str(tmp_path / "lists/list.txt"))[0].samefile(path)


def test_paths_of_a_list_are_relative_to_it(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_corpus(tmp_path / name, clips=2)
        (tmp_path / name / "list.txt").write_text("wavs/clip00.wav\nwavs/clip01.wav\n")
    monkeypatch.chdir(tmp_path / "a")
    assert find_clips("", str(tmp_path / "b/list.txt")) == find_clips(str(tmp_path / "b"))
    (tmp_path / "list.txt").write_text("wavs/clip00.wav\n")
    assert find_clips("", str(tmp_path / "list.txt")) == [Path("wavs/clip00.wav")]  # as NVIDIA's lists are


@pytest.mark.parametrize(
    "text",
    [
        "wavs/clip00.wav\nwavs/clip01.wav",
        "wavs/clip00.wav|A tone.\nwavs/clip01.wav|A tone | or two.\n",
        "\ufeff\n wavs/clip00.wav \n \t\n\twavs/clip01.wav\t|A tone.\n\n",
        "wavs/clip00.wav\r\n\r\nwavs/clip01.wav | A tone.\r\n",
        "wavs/clip00.wav|One\u2028line.\nwavs/clip01.wav|And\x0banother.",
    ],
)
def test_a_line_of_a_list_is_a_path_whatever_is_around_it(corpus, text):
    """Blanks, empty lines, a byte order mark, the ends of lines of other systems; and texts may hold odd characters."""
    (corpus / "list.txt").write_text(text, encoding="utf-8", newline="")
    assert find_clips("", str(corpus / "list.txt")) == find_clips(str(corpus))[:2]
    (corpus / "list.txt").write_text(" \n\n")
    with pytest.raises(UserError, match=rf"{corpus}/list\.txt lists no clips"):
        find_clips("", str(corpus / "list.txt"))


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["lists/a.wav", "a.wav", "lists/A.wav"], "lists/a.wav"),
        (["lists/A.wav", "a.wav"], "a.wav"),
        (["lists/A.wav", "A.wav"], "lists/A.wav"),
        (["A.wav"], "A.wav"),
        (["lists/A.wav", "lists/a.WAV", "A.wav"], "A.wav"),  # beside the list it may be either
        (["lists/A.wav", "lists/a.WAV"], "a.wav"),
        ([], "a.wav"),
    ],
)
@pytest.mark.parametrize("folder", ["", "in/"])
def test_where_the_path_of_a_list_is_looked_for(tmp_path, monkeypatch, there, found, folder):
    """Exactly this one beside the list, then where the program was started; then one of nearly this name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    for name in there:
        path = tmp_path / name.replace("lists/", f"lists/{folder}") if "/" in name else tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "lists/list.txt").write_text(f"{folder}a.wav\n")
    expected = f"lists/{folder}{found[6:]}" if found.startswith("lists/") else folder + found
    assert find_clips("", "lists/list.txt") == [Path(expected)]


def test_names_that_differ_only_in_case_are_told_apart(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=2)
    (corpus / "wavs/clip01.wav").rename(corpus / "wavs/CLIP00.wav")
    (corpus / "metadata.csv").write_text("clip00|One.\nCLIP00|Two.\n")
    training, held_back = tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))
    assert {clip.path.stem: clip.text for clip in training + held_back} == {"clip00": "One.", "CLIP00": "Two."}
    (corpus / "metadata.csv").write_text("Clip00|One.\n")
    with pytest.raises(UserError, match=r"there is no wavs/Clip00\.wav"):
        find_clips(str(corpus))


@pytest.mark.parametrize("speakers", [["anna"], ["anna", "bob"]])
def test_a_speaker_is_no_text(corpus, speakers):
    names = [line.split("|")[0] for line in (corpus / "metadata.csv").read_text().splitlines()]
    lines = [f"{name}|Text {i}.|{speakers[i % len(speakers)]}\n" for i, name in enumerate(names)]
    (corpus / "metadata.csv").write_text("".join(lines))
    with pytest.raises(UserError, match=rf"the last column has only {len(speakers)} different values \('anna'"):
        tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))


@pytest.mark.parametrize(("lines", "texts", "taken"), [(2, 1, True), (3, 1, False), (6, 3, False), (6, 4, True)])
def test_texts_may_occur_twice_but_not_half_of_them(tmp_path, lines, texts, taken):
    """Of more than two lines whose second columns differ."""
    path = tmp_path / "metadata.csv"
    path.write_text("".join(f"clip{i}|Text {i}.|Text {i % texts}.\n" for i in range(lines)))
    if taken:
        assert len(read_transcripts(path)) == lines
    else:
        with pytest.raises(UserError, match=f"only {texts} different values"):
            read_transcripts(path)
