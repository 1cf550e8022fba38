"""tools/prepare_data.py: transcripts are read in whatever form people have them."""

import codecs
import csv
import io
import unicodedata

import pytest

from common.program import UserError
from tools.prepare.encodings import decode, find_encoding
from tools.prepare.sources import find_source, tidy
from tools.prepare.transcripts import find_columns, find_delimiter, split_rows

NAMES = [f"Clip_{i}" for i in range(8)]
TEXTS = [
    'He said, "go" | and left.', "Two words; three.", "In 1905, it rained.", "Über die Brücke, natürlich.",
    'A "quoted" word, and more.', "Was it you?", "Nobody, ever.", "The end of it.",
]  # fmt: skip
PLAIN = [text.replace("|", "-") for text in TEXTS]


def wavs(folder, names=NAMES, ending=".wav"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{ending}").write_bytes(b"")
    return folder


def texts_of(source):
    return {item.name: item.text for item in source.items}


def found(tmp_path, content, **options):
    """What a metadata.csv of this content gives."""
    wavs(tmp_path / "wavs")
    (tmp_path / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return find_source(tmp_path, **options)


FORMS = {
    "LJ Speech's": "{name}|raw {text}|{text}",
    "two columns": "{name}|{text}",
    "speaker in the middle": "{name}|anna|{text}",
    "speaker at the end": "{name}|{text}|anna",
    "four columns": "wavs/{name}.wav|anna|raw {text}|{text}",
    "id and duration": "{number}|{name}|{text}|1.{number}",
    "an empty last column": "{name}|{text}|",
    "tabs": "{name}.WAV\t{text}",
    "another machine's paths": "/data/x/wavs/{name}.wav|{text}",
    "another system's paths": r"C:\data\wavs\{name}.wav|{text}",
    "another case": "clip_{number}|{text}",
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_told_by_what_stands_in_them(tmp_path, form):
    lines = [FORMS[form].format(name=n, text=t, number=i) for i, (n, t) in enumerate(zip(NAMES, PLAIN))]
    source = found(tmp_path, "\n".join(lines))
    assert texts_of(source) == dict(zip(NAMES, PLAIN)) and source.problems == []
    assert {item.speaker for item in source.items} == {"anna" if "anna" in FORMS[form] else ""}


@pytest.mark.parametrize("delimiter", "|,;\t")
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_quoted_cells_with_a_header(tmp_path, delimiter, quoting):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
    writer.writerow(["audio_file", "text", "speaker_name", "emotion_name"])
    writer.writerows([f"wavs/{n}", t, "max", "neutral"] for n, t in zip(NAMES, TEXTS))
    source = found(tmp_path, out.getvalue())
    assert texts_of(source) == dict(zip(NAMES, map(tidy, TEXTS)))
    assert {item.speaker for item in source.items} == {"max"}


def test_a_first_text_that_is_the_name_of_a_column_is_no_header(tmp_path):
    assert texts_of(found(tmp_path, "Clip_0|Sentence\nClip_1|Another one.")) == {
        "Clip_0": "Sentence", "Clip_1": "Another one.",
    }  # fmt: skip


def test_quotation_marks_in_texts_are_no_quoting():
    """LJ Speech has texts that begin with one and end without."""
    lines = ['a|"Go," he said', 'b|"No," she said. "Never."', "c|They went.", 'd|And so, "it was"']
    rows, _ = split_rows("\n".join(lines))
    assert [row.cells for row in rows] == [line.split("|") for line in lines]


def test_a_whole_text_in_quotation_marks_is_a_quotation():
    """Where the other lines have none."""
    lines = ["a|They went.", "b|She said so.", 'c|"Never!"', "d|And that was it."]
    rows, how = split_rows("\n".join(lines))
    assert rows[2].cells == ["c", '"Never!"'] and "quoted" not in how


def test_a_row_has_the_number_of_its_first_line():
    rows, _ = split_rows('"a"|"One\ntwo."\n\n"b"|"Three | four."\n"c"|"Five."')
    assert [(row.number, row.cells[0]) for row in rows] == [(1, "a"), (4, "b"), (5, "c")]


def test_quotation_marks_in_quoted_texts_that_are_not_doubled():
    lines = ['"a"|"The "first" of them."', '"b"|"The second."', '"c"|""Third," he said."']
    rows, how = split_rows("\n".join(lines))
    assert [row.cells[1] for row in rows] == ['The "first" of them.', "The second.", '"Third," he said.']
    assert how.endswith("quoted")


def test_quotation_marks_that_do_not_match_are_an_error(tmp_path):
    lines = [f'"{name}"|"{text}"' for name, text in zip(NAMES, ["a b", "c d"] * 4)]
    lines += [f'"{name}"|"{text}"' for name, text in zip(NAMES, ["a b", "c d"] * 10)] * 4
    lines[-1] = lines[-1][:-1]
    with pytest.raises(UserError, match=r"metadata\.csv: from line 40 on quotation marks do not match"):
        found(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("encoding", [
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1251", "koi8-r", "mac_cyrillic",
])  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_of_russian(tmp_path, encoding, end):
    texts = [
        "Съешь же ещё этих мягких французских булок.",
        "В чащах юга жил бы цитрус?",
        "Широкая река.",
        "Да, это он!",
    ]
    source = found(tmp_path, end.join(f"{n}|{t}" for n, t in zip(NAMES, texts)).encode(encoding))
    assert texts_of(source) == dict(zip(NAMES, texts))
    assert ("by its bytes" in source.facts[0]) == (encoding not in ("utf-8", "utf-8-sig", "utf-16", "utf-32"))


@pytest.mark.parametrize("encoding,texts", {
    "cp1252": ["Zwölf Boxkämpfer jagen Viktor quer über den Deich.", "Falsches Üben von Xylophonmusik quält Größere."],
    "gb18030": ["今天天气很好,我们去公园散步。", "他昨天买了一本新书。"],
    "shift_jis": ["今日は天気がいいです。", "昨日新しい本を買いました。"],
    "cp949": ["오늘 날씨가 좋습니다.", "어제 새 책을 샀습니다."],
}.items())  # fmt: skip
def test_other_encodings_are_guessed(encoding, texts):
    content = "\n".join(f"{n}|{t}" for n, t in zip(NAMES, texts)).encode(encoding)
    name, guessed = find_encoding(content)
    assert guessed and decode(content, name, "it").split("\n") == [f"{n}|{t}" for n, t in zip(NAMES, texts)]


def test_an_encoding_can_be_said(tmp_path):
    content = "Clip_0|Málaga está aquí\n".encode("cp1252")
    assert texts_of(found(tmp_path, content, encoding="cp1252"))["Clip_0"] == "Málaga está aquí"
    with pytest.raises(UserError, match=r"not text in the encoding utf-9: it is not known; say it with --encoding"):
        found(tmp_path, content, encoding="utf-9")
    with pytest.raises(UserError, match="not text in the encoding ascii: byte"):
        found(tmp_path, content, encoding="ascii")


def test_what_is_no_text(tmp_path):
    with pytest.raises(UserError, match="is no text file"):
        found(tmp_path, codecs.BOM_UTF8 + b"a|b\0\0")


def test_columns_can_be_said(tmp_path):
    content = "\n".join(f"{n}|{t}|comment {i}" for i, (n, t) in enumerate(zip(NAMES, PLAIN)))
    assert texts_of(found(tmp_path, content))["Clip_0"] == "comment 0"
    assert texts_of(found(tmp_path, content, columns="name,text,-"))["Clip_0"] == PLAIN[0]
    for wrong, message in {
        "name,text": "names 2 columns, and most lines have 3",
        "name,words,-": "has 'words'",
        "text,text,-": "must have one name",
    }.items():
        with pytest.raises(UserError, match=message):
            found(tmp_path, content, columns=wrong)


def test_lines_that_do_not_fit_are_all_said(tmp_path):
    source = found(
        tmp_path, "Clip_0|One.\nClip_1|Two.|Two.\nnobody|Three.\nClip_3|Four.\nClip_3|Five.\nClip_4|Six.\nClip_4|Six."
    )
    assert texts_of(source) == {"Clip_0": "One.", "Clip_4": "Six."}
    said = " ".join(problem.message for problem in source.problems)
    for part in ("line 2 has 3 columns, most have 2", "line 3: there is no audio file nobody",
                 "Clip_3.wav has 2 texts: ", "Clip_7.wav: no list has a line for it"):  # fmt: skip
        assert part in said
    assert "Clip_1.wav" not in said  # line 2 is said already
    assert len(source.problems) == 3 + 4


def test_a_list_whose_audio_is_elsewhere(tmp_path):
    wavs(tmp_path / "sounds/deep")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("".join(f"DUMMY/{n}.wav|{t}\n" for n, t in zip(NAMES, PLAIN)))
    with pytest.raises(UserError, match=r"no audio for any of its 8 lines, such as 'DUMMY/Clip_0\.wav'.*--audio=DIR"):
        find_source(tmp_path / "lists/train.txt")
    assert texts_of(find_source(tmp_path / "lists/train.txt", tmp_path / "sounds")) == dict(zip(NAMES, PLAIN))


def test_a_list_without_texts(tmp_path):
    wavs(tmp_path / "wavs")
    (tmp_path / "train.txt").write_text("".join(f"wavs/{n}.wav\n" for n in NAMES[:3]))
    assert texts_of(find_source(tmp_path / "train.txt")) == dict.fromkeys(NAMES[:3])


def test_folders_tell_clips_of_one_name_apart(tmp_path):
    for folder in ("one", "two"):
        wavs(tmp_path / folder, ["a", "b"])
    (tmp_path / "metadata.csv").write_text("one/a|First.\ntwo/a|Second.\nb|Which?\n")
    source = find_source(tmp_path)
    assert texts_of(source) == {"one_a": "First.", "two_a": "Second."}
    assert "line 3: b may be 2 files: " in " ".join(problem.message for problem in source.problems)


def test_a_metadata_in_each_subfolder(tmp_path):
    for folder in ("anna", "max"):
        wavs(tmp_path / folder / "wavs", ["a"])
        (tmp_path / folder / "Metadata.CSV").write_text(f"a|I am {folder}.\n")
    assert texts_of(find_source(tmp_path)) == {"anna_wavs_a": "I am anna.", "max_wavs_a": "I am max."}


def test_pairs_in_subfolders_with_names_of_another_system(tmp_path):
    for i, folder in enumerate(("one", "two")):
        wavs(tmp_path / folder, [f"Übung {i}", f"._Übung {i}"], ".MP3")
        name = unicodedata.normalize("NFD", f"übung {i}.txt")
        (tmp_path / folder / name).write_bytes(f"Schöne Grüße\r\n aus Köln {i}\n".encode("cp1252"))
        (tmp_path / folder / f"._{name}").write_bytes(b"\0")
    wavs(tmp_path, ["alone"], ".flac")
    wavs(tmp_path, ["utf8"])
    (tmp_path / "utf8.txt").write_text("Съешь же ещё этих мягких французских булок, да выпей чаю. " * 9)  # no guess
    (tmp_path / "README.txt").write_text("Recorded at home.")
    source = find_source(tmp_path)
    texts = texts_of(source)
    assert texts.pop("utf8").startswith("Съешь")
    assert texts == {"Übung 0": "Schöne Grüße aus Köln 0", "Übung 1": "Schöne Grüße aus Köln 1"}
    (problem,) = source.problems
    assert problem.message.endswith("alone.flac: there is no alone.txt for it")


@pytest.mark.parametrize("folder", [".", "wavs"])
def test_a_wav_is_preferred_to_what_was_made_of_it(tmp_path, folder):
    for ending in (".mp3", ".WAV", ".flac"):
        wavs(tmp_path / folder, ["a"], ending)
    for name, found in (("a", "a.WAV"), ("a.mp3", "a.mp3")):
        (tmp_path / "metadata.csv").write_text(f"{name}|One.\n")
        assert [item.path.name for item in find_source(tmp_path).items] == [found]


def test_of_two_texts_beside_a_clip_the_normalized_one_is_read(tmp_path):
    wavs(tmp_path, ["a"])
    for ending, text in ((".normalized.txt", "It was nineteen."), (".txt", "It was 19.")):
        (tmp_path / f"a{ending}").write_text(text)
    assert texts_of(find_source(tmp_path)) == {"a": "It was nineteen."}


def test_texts_become_one_line_without_what_nobody_sees():
    assert tidy("\ufeffa\u0308 |\tb\u00a0c\r\nd\u200be\u00adf") == "ä b c def"
    assert tidy("می\u200cخواهم") == "می\u200cخواهم"


def test_audio_alone_beside_a_list_of_another_name(tmp_path):
    wavs(tmp_path, NAMES)
    (tmp_path / "transcript.csv").write_text("a|b")
    assert "transcript.csv has the texts, name it in place of the folder" in find_source(tmp_path).facts[0]


def test_a_text_that_ends_as_the_name_of_a_file_does(tmp_path):
    long = "See it on www." + 300 * "x" + ".au"
    assert texts_of(found(tmp_path, f"Clip_0|{long}\nClip_1|{long} too"))["Clip_0"] == long


def test_links_that_lead_back_end(tmp_path):
    wavs(tmp_path / "a", ["x"])
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "metadata.csv").write_text("x|One.\n")
    assert texts_of(find_source(tmp_path)) == {"x": "One."}


@pytest.mark.parametrize("what,message", [
    ("nowhere", "there is no .*nowhere"), ("", "holds no audio"), ("a.wav", "is audio: name a folder"),
    ("empty.txt", "empty.txt: it is empty"),
])  # fmt: skip
def test_nothing_to_read(tmp_path, what, message):
    if what.endswith(".wav"):
        wavs(tmp_path, ["a"])
    elif what.endswith(".txt"):
        (tmp_path / what).write_text("\n")
    with pytest.raises(UserError, match=message):
        find_source(tmp_path / what)


@pytest.mark.parametrize(("delimiter", "separates"), [("|", True), ("\t", True), (";", False), (",", False)])
def test_a_sign_that_two_of_three_lines_have(delimiter, separates):
    """A bar or a tab is hardly in any text, a comma or a semicolon is in many."""
    lines = [f"a{delimiter}b", f"c{delimiter}d", "e f"]
    assert find_delimiter(lines) == delimiter * separates


def test_columns_without_any_audio_are_the_first():
    rows, _ = split_rows("a|Some text here.\nb|More of it.")
    assert str(find_columns(rows, lambda cell: False)[0]) == "name, text"
