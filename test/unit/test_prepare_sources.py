"""tools/prepare_data.py: which files it reads, and in which order what it finds stands."""

import pytest
import soundfile
from speech_like import speech

from common.program import UserError
from conftest import RATE
from tools import prepare_data
from tools.prepare import encodings
from tools.prepare.audio_files import AudioFiles
from tools.prepare.sources import Item, Source, find_source
from tools.prepare.transcripts import Row, find_columns


@pytest.fixture
def clips(tmp_path):
    """A function that writes clips of these names."""

    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            soundfile.write(tmp_path / name, speech(0.5), RATE)
        return tmp_path

    return write


def test_a_list_of_any_length_but_not_one_more_byte_than_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "LARGEST", 10)
    path = tmp_path / "list.txt"
    path.write_bytes(b"a" * 10)
    assert encodings.read_bytes(path) == b"a" * 10
    path.write_bytes(b"a" * 11)
    with pytest.raises(UserError, match="more than 10 bytes"):
        encodings.read_bytes(path)


def test_what_is_no_audio_is_not_found(clips):
    folder = clips("a.wav")
    (folder / "notes.txt").write_text("Nothing to hear.")
    files = AudioFiles(folder)
    assert files.find("a.wav") == files.find(str(folder / "a.wav")) == [folder / "a.wav"]
    assert files.find("notes.txt") == files.find(str(folder / "notes.txt")) == []


def test_below_a_folder_with_a_list_no_other_one_is_read(clips):
    folder = clips("a/one.wav", "two.wav")
    (folder / "metadata.csv").write_text("two|The right one.\none|That one, too.\n")
    (folder / "a/metadata.csv").write_text("one|Another text.\n")
    source = find_source(folder)
    assert [item.text for item in source.items] == ["That one, too.", "The right one."]
    assert not source.problems
    assert len(source.facts) == 1


def test_clips_stand_in_the_order_of_their_names_whatever_that_of_the_list(clips):
    folder = clips("c.wav", "a.wav", "b.wav")
    (folder / "metadata.csv").write_text("".join(f"{name}|Text {name}.\n" for name in "bca"))
    assert [item.name for item in find_source(folder).items] == ["a", "b", "c"]


@pytest.mark.parametrize(("notes", "speaker"), [(["loud", "loud", "", ""], -1), (["anna", "anna", "max", "max"], 2)])
def test_a_speaker_has_a_name_on_each_line(notes, speaker):
    rows = [Row(i, [f"{i}.wav", f"A sentence, number {i}.", note]) for i, note in enumerate(notes)]
    columns, _ = find_columns(rows, lambda cell: cell.endswith(".wav"))
    assert (columns.name, columns.text, columns.speaker) == (0, 1, speaker)


def test_a_speaker_whose_name_is_part_of_another_s_is_not_the_other(tmp_path):
    source = Source([Item(tmp_path, "Text.", "", speaker) for speaker in ("anna", "hanna", "annabel", "anna")])
    assert [item.speaker for item in prepare_data.of_one_speaker(source, "anna").items] == ["anna", "anna"]


@pytest.mark.parametrize("order", ["name,text,speaker", "speaker,name,text", "text,speaker,name", "text,name,-"])
def test_each_column_may_be_the_first(clips, order):
    folder = clips("a.wav", "b.wav")
    rows = [{"name": name, "text": f"Text {name}.", "speaker": f"s{name}", "-": "x"} for name in "ab"]
    (folder / "list.txt").write_text("".join("|".join(row[role] for role in order.split(",")) + "\n" for row in rows))
    found = find_source(folder / "list.txt", columns=order).items
    speakers = ["sa", "sb"] if "speaker" in order else ["", ""]
    assert [(item.name, item.text, item.speaker) for item in found] == [
        ("a", "Text a.", speakers[0]), ("b", "Text b.", speakers[1]),
    ]  # fmt: skip
    assert [item.where for item in found] == [f"{folder / 'list.txt'} line {number}" for number in (1, 2)]


def test_without_a_column_of_texts_there_are_none(clips):
    folder = clips("a.wav", "b.wav")
    (folder / "list.txt").write_text("anna|a.wav\nanna|b.wav\n")
    found = find_source(folder / "list.txt", columns="speaker,name").items
    assert [(item.text, item.speaker) for item in found] == [(None, "anna")] * 2
