"""tools/prepare_data.py: which lists and pairs it reads and how, what it says of them, in which order all stands."""

import pytest
import soundfile
from speech_like import speech

from common.program import UserError
from conftest import RATE, touch
from tools import prepare_data
from tools.prepare import encodings
from tools.prepare.audio_files import AudioFiles
from tools.prepare.problems import Kind
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
