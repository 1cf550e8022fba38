"""What a dataset's folder may hold beside its clips, which clip a name means, and what a line of texts must be."""

import unicodedata
from pathlib import Path

import pytest

from common.audio import Fault
from common.bad_clips import BadClips
from common.corpus import find_clips, finder, read_lines, read_transcripts, wavs_in
from common.program import UserError
from conftest import make_corpus


@pytest.mark.parametrize("case", [str.lower, str.upper])
@pytest.mark.parametrize("ending", ["flac", "ogg", "opus", "mp3", "m4a", "aif", "aiff", "au", "wma"])
def test_audio_that_is_no_wav_is_left_out_with_a_warning_or_refused(tmp_path, caplog, case, ending):
    corpus = make_corpus(tmp_path / "c", clips=2, seconds=0.01)
    for name in ("more", "other"):
        (corpus / f"wavs/{name}.{case(ending)}").write_bytes(b"")
    assert len(find_clips(str(corpus))) == 2
    assert f"2 files in wavs/ are left out: they are no .wav: more.{case(ending)}, ...; convert it: ff" in caplog.text
    for clip in wavs_in(corpus / "wavs"):
        clip.unlink()
    with pytest.raises(UserError, match=f"^{corpus}/wavs holds no .wav file; convert it: ffmpeg"):
        find_clips(str(corpus))


def test_other_files_are_no_audio(tmp_path, caplog):
    corpus = make_corpus(tmp_path / "c", clips=2, seconds=0.01)
    for name in ("notes.txt", "clip00.wav.bak", "wav", ".hidden.wav", "._clip00.wav", "clip00.json", ".wav"):
        (corpus / "wavs" / name).write_bytes(b"")
    assert [clip.name for clip in find_clips(str(corpus))] == ["clip00.wav", "clip01.wav"]
    assert not caplog.messages
    for name in ("clip00.wav", "clip01.wav"):
        (corpus / "wavs" / name).unlink()
    with pytest.raises(UserError, match=f"^{corpus}/wavs holds no .wav file$"):
        find_clips(str(corpus))


def test_a_name_means_the_clip_of_exactly_this_name_or_the_only_one_like_it():
    """Exactly this one, and the first of several; else the only one that differs in case or accents."""
    composed = [unicodedata.normalize(form, "b/Übung.wav") for form in ("NFC", "NFD")]
    clips = [Path(name) for name in ("a/One.wav", "a/ONE.wav", "a/two.wav", "a/two.WAV", composed[1], "a/x.y.wav")]
    find = finder(clips)
    for name, clip in {"One": 0, "ONE": 1, "two": 2, "Übung": 4, "ÜBUNG": 4, "x.y": 5, "X.Y": 5}.items():
        assert find(unicodedata.normalize("NFC", name)) == clips[clip], name
    for name in ("one", "Two", "", "x", "One.wav", "a/One"):
        assert find(name) is None, name
    assert finder([])("One") is None


@pytest.mark.parametrize(
    ("line", "missing"),
    [("clip99|Text.", "clip99"), ("|Text.", ""), (" clip00 |Text.", None), ("CLIP00|Text.", None), (" \t", None)],
)
def test_a_line_of_the_metadata_names_a_clip(tmp_path, line, missing):
    """What it names and is not there is a fault of the texts, and no clip's."""
    corpus = make_corpus(tmp_path / "c", clips=2, seconds=0.01)
    (corpus / "metadata.csv").write_text(f"clip01|Text.\n{line}\n")
    bad = BadClips()
    assert len(find_clips(str(corpus), bad=bad)) == 2
    said = f"{corpus}/metadata.csv line 2: there is no wavs/{missing}.wav"
    assert bad.faults == ({} if missing is None else {said: Fault.TEXT}) and not bad.paths


def test_of_two_clips_of_one_name_the_second_cannot_be_used(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=3, seconds=0.01)
    (corpus / "wavs/clip01.wav").rename(corpus / "wavs/clip00.WAV")
    (corpus / "metadata.csv").unlink()
    bad = BadClips()
    assert len(find_clips(str(corpus), bad=bad)) == 3
    assert bad.paths == {corpus / "wavs/clip00.wav"} and list(bad.faults.values()) == [Fault.FORMAT]
    with pytest.raises(UserError, match=r"^1 of 3 clips cannot be used: .*clip00\.wav has the same name as clip00\."):
        find_clips(str(corpus))


def test_without_a_metadata_file_any_clips_will_do(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=2, seconds=0.01)
    (corpus / "metadata.csv").unlink()
    assert len(find_clips(str(corpus))) == 2
    (corpus / "metadata.csv").symlink_to("nowhere")
    with pytest.raises(UserError, match=f"cannot read {corpus}/metadata.csv: No such file"):
        find_clips(str(corpus))


def test_a_folder_without_wavs_or_without_a_clip_of_its_texts_is_refused(tmp_path, corpus):
    cases = {
        "missing": (tmp_path / "nothing", "is no folder"),
        "no wavs folder": (corpus / "wavs", "no folder wavs/"),
    }
    (tmp_path / "empty/wavs").mkdir(parents=True)
    cases["empty"] = (tmp_path / "empty", "holds no .wav")
    for path, message in cases.values():
        with pytest.raises(UserError, match=message):
            find_clips(str(path))
    with (corpus / "metadata.csv").open("a") as file:
        file.write("clip99|Not there.|Not there.\n")
    with pytest.raises(UserError, match=r"metadata.csv line 14: there is no wavs/clip99.wav"):
        find_clips(str(corpus))


def test_odd_metadata_is_refused_in_a_line(corpus):
    (corpus / "metadata.csv").write_bytes(b"clip00|caf\xe9|caf\xe9\n")
    with pytest.raises(UserError, match="is not UTF-8 text: byte 10 is 0xe9"):
        find_clips(str(corpus))
    (corpus / "metadata.csv").write_text("x" * 200_000)
    with pytest.raises(UserError, match=r"line 1: there is no wavs/x{100}\.wav"):
        find_clips(str(corpus))


def test_a_file_list_may_take_the_place_of_a_folder(tmp_path, corpus):
    clips = find_clips(str(corpus))
    (tmp_path / "files.txt").write_text("\n".join(map(str, clips)) + "\n\n")
    assert find_clips("", str(tmp_path / "files.txt")) == clips
    with pytest.raises(UserError, match="--data_path"):
        find_clips("", "")
    with pytest.raises(UserError, match="cannot read"):
        find_clips("", str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", [""]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\rc", ["a", "b", "c"]),
        (b"\xef\xbb\xbfa\n\n", ["a", ""]),
        ("a\u2028b\x0bc\x0c\x1c\x85d\n".encode(), ["a\u2028b\x0bc\x0c\x1c\x85d"]),  # which splitlines would split at
        (b"a\xef\xbb\xbfb", ["a\ufeffb"]),
    ],
)
def test_the_lines_of_a_text_are_those_that_an_editor_shows(tmp_path, content, lines):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_lines(tmp_path / "a.txt") == lines


@pytest.mark.parametrize(
    ("line", "columns", "text"),
    [
        ("a|One.", (2, 3), "One."),
        (" a | One. ", (2, 3), "One."),
        ("a|1.|One.", (2, 3), "One."),
        ("a|1.| One. ", (2, 3), "One."),
        ("a", (2, 3), " has 1 columns split by |, must be 2 or 3"),
        ("a|b|c|d", (2, 3), " has 4 columns split by |, must be 2 or 3"),
        ("a|1.|One.", (2, 2), " has 3 columns split by |, must be 2"),
        ("a|", (2, 3), ": the text of a is empty"),
        ("a|1.| ", (2, 3), ": the text of a is empty"),
        ("b|Two.", (2, 3), ": b occurs a second time"),
        (" b |Two.", (2, 3), ": b occurs a second time"),
    ],
)
def test_a_line_has_a_name_and_a_text(tmp_path, line, columns, text):
    """The last column, in which speech is written as it is spoken; lines with nothing in them count, too."""
    path = tmp_path / "metadata.csv"
    path.write_text(f"b|Before.\n \n{line}\n")
    bad = BadClips()
    found = read_transcripts(path, columns, bad)
    is_fault = text.startswith((" ", ":"))
    assert found == {"b": "Before."} | ({} if is_fault else {"a": text})
    assert bad.faults == ({f"{path} line 3{text}": Fault.TEXT} if is_fault else {})
    if is_fault:
        with pytest.raises(UserError) as error:
            read_transcripts(path, columns)
        assert str(error.value) == f"{path} line 3{text}"


def test_names_are_said_in_short(tmp_path):
    name = "n" * 200
    path = tmp_path / "metadata.csv"
    path.write_text(f"{name}|One.\n{name}|Two.\n{'m' * 200}|\n")
    bad = BadClips()
    read_transcripts(path, bad=bad)
    assert list(bad.faults) == [
        f"{path} line 2: {'n' * 100} occurs a second time",
        f"{path} line 3: the text of {'m' * 100} is empty",
    ]
