"""What cannot be used of a corpus is refused at the start, all of it at once, or left out."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from common import bad_clips, distributed, read_clips
from common.audio import ClipError, Fault
from common.bad_clips import NAME, BadClips
from common.program import UserError
from conftest import RATE, make_corpus, toy_config, toy_tacotron2_config
from runs import start

TOYS = {"waveglow": toy_config, "tacotron2": toy_tacotron2_config}


@pytest.fixture
def spoiled(tmp_path):
    """A corpus with a clip of each kind that cannot be used, in an order that is not that of how bad they are."""
    corpus = make_corpus(tmp_path / "spoiled", clips=20)
    wavs = corpus / "wavs"
    audio = soundfile.read(wavs / "clip09.wav", dtype="float32")[0]
    soundfile.write(wavs / "clip05.wav", audio, 16000)
    soundfile.write(wavs / "clip06.wav", np.where(np.arange(len(audio)) == 7000, np.nan, audio), RATE, subtype="FLOAT")
    (wavs / "clip07.wav").write_bytes((wavs / "clip07.wav").read_bytes()[:-500])
    (wavs / "clip08.wav").write_text("no audio")
    with (corpus / "metadata.csv").open("a") as file:
        file.write("clip99|Nobody.|Nobody.\n")
    return corpus


@pytest.mark.parametrize("name", TOYS)
def test_all_is_refused_at_once_the_worst_first(spoiled, tmp_path, name):
    with pytest.raises(UserError) as error:
        start(TOYS[name](), spoiled, tmp_path / "out")
    message = str(error.value)
    assert message.startswith(f"4 of 20 clips cannot be used: {spoiled}/wavs/clip08.wav is not readable")
    assert f"all 5, the worst first: {tmp_path}/out/{NAME}" in message and "--on_bad_clip=skip" in message
    lines = (tmp_path / "out" / NAME).read_text().splitlines()
    places = [
        "clip08.wav",
        "clip07.wav is truncated",
        "clip06.wav holds samples that are not finite",
        "clip05.wav has 16000",
    ]
    assert len(lines) == 5 and all(place in line for place, line in zip([*places, "wavs/clip99.wav"], lines))


@pytest.mark.parametrize("name", TOYS)
def test_bad_clips_are_skipped_at_the_start_too(spoiled, tmp_path, name, caplog):
    run, _ = start(TOYS[name](), spoiled, tmp_path / "out", max_steps=5, on_bad_clip="skip")
    assert run.progress.iteration == 5
    assert "left out: 4 of 20 clips cannot be used" in caplog.text
    assert "skipped: " not in caplog.text
    # A corpus that was mended needs no list.
    start(TOYS[name](), make_corpus(tmp_path / "good"), tmp_path / "out", resume="no", max_steps=1)
    assert not (tmp_path / "out" / NAME).exists()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 50])
def test_three_faults_are_said_and_all_are_in_the_list(tmp_path, count):
    bad = BadClips(folder=tmp_path)
    for number in range(count):
        bad.add(f"fault {number}", Fault.TEXT)
    with pytest.raises(UserError) as error:
        bad.settle(count)
    said = str(error.value).partition(" (all ")[0]
    assert said.count("fault ") == min(count, 3) and said.endswith("; ...") == (count > 3)
    assert said.startswith("the transcripts have faults: ") == (count > 1)
    assert (tmp_path / NAME).read_text() == "".join(f"fault {number}\n" for number in range(count))


HINT = " (--on_bad_clip=skip leaves them out; python tools/prepare_data.py makes a data set of what you have)"


@pytest.mark.parametrize("on_bad_clip", ["stop", "skip"])
@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([("a.wav is silent", Fault.SILENT, "a.wav")], "1 of 7 clips cannot be used: a.wav is silent"),
        ([("line 3: no text", Fault.TEXT, None)], "line 3: no text"),
        (
            [("line 3: no text", Fault.TEXT, None), ("line 5: no text", Fault.TEXT, None)],
            "the transcripts have faults: line 3: no text; line 5: no text",
        ),
        (
            [("a.wav has no text", Fault.TEXT, None), ("b.wav is silent", Fault.SILENT, "b.wav")],
            "1 of 7 clips cannot be used: b.wav is silent; a.wav has no text",
        ),
        (
            [("a.wav is silent", Fault.SILENT, "a.wav"), ("so it is", Fault.SILENT, "a.wav")],
            "1 of 7 clips cannot be used: a.wav is silent; so it is",
        ),
    ],
)
def test_what_is_wrong_is_an_error_or_a_warning_in_one_line(tmp_path, caplog, faults, said, on_bad_clip):
    bad = BadClips(on_bad_clip, tmp_path)
    for message, fault, path in faults:
        bad.add(message, fault, Path(path) if path else None)
    said += f" (all {len(faults)}, the worst first: {tmp_path}/{NAME})"
    if on_bad_clip == "stop":
        with pytest.raises(UserError) as error:
            bad.settle(7)
        assert str(error.value) == said + HINT and not caplog.messages
    else:
        bad.settle(7)
        assert caplog.messages == [f"left out: {said}"]


def test_a_corpus_without_faults_is_passed_in_silence_and_its_old_list_removed(tmp_path, monkeypatch, caplog):
    """By the first process."""
    for rank in (1, 0):
        (tmp_path / NAME).write_text("old")
        monkeypatch.setattr(distributed, "ranks", lambda rank=rank: distributed.Ranks(rank, 2, rank))
        BadClips(folder=tmp_path).settle(7)
        assert (tmp_path / NAME).exists() == (rank > 0)
    BadClips(folder=tmp_path).settle(7)  # where there is none
    BadClips().settle(7)
    assert not caplog.messages


def test_the_worst_come_first_and_equal_ones_as_they_were_found():
    bad = BadClips()
    order = sorted(Fault)
    for name in "ab":
        for fault in order:
            bad.add(f"{fault.name} {name}", fault)
    assert bad.worst_first() == [f"{fault.name} {name}" for fault in reversed(order) for name in "ab"]


def test_clips_are_left_out_as_paths_or_by_their_paths():
    bad = BadClips()
    bad.add_error(ClipError("b is silent", Fault.SILENT), Path("b"))
    bad.add("a line", Fault.TEXT)
    assert bad.faults == {"b is silent": Fault.SILENT, "a line": Fault.TEXT} and bad.paths == {Path("b")}
    utterances = [SimpleNamespace(path=Path(name)) for name in "abc"]
    assert bad.without(utterances, "training") == [utterances[0], utterances[2]]
    assert bad.without([Path("a"), Path("b")], "training") == [Path("a")]
    for none in ([Path("b")], []):
        with pytest.raises(UserError, match="none of the held-back clips can be used"):
            bad.without(none, "held-back")


def test_a_name_that_is_no_text_is_in_the_list_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_clips.log, "disabled", True)  # pytest-xdist cannot pass such a line on
    bad = BadClips("skip", tmp_path)
    bad.add("caf\udce9.wav is silent", Fault.SILENT)
    bad.settle(1)
    assert (tmp_path / NAME).read_bytes() == b"caf\\udce9.wav is silent\n"


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_first_process_writes_the_list(tmp_path, monkeypatch, rank):
    """The others say where it is."""
    for name, value in {"RANK": rank, "WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    bad = BadClips(folder=tmp_path)
    bad.add("a fault", Fault.TEXT)
    with pytest.raises(UserError, match=rf"all 1, the worst first: {tmp_path}/{NAME}"):
        bad.settle(1)
    assert (tmp_path / NAME).exists() == (rank == 0)


def test_without_a_folder_nothing_is_written_and_no_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = BadClips()
    bad.add("a fault", Fault.TEXT)
    with pytest.raises(UserError, match=r"^a fault$"):
        bad.settle(1)
    assert not list(tmp_path.iterdir())


def test_a_list_that_cannot_be_written_is_said_and_not_named(tmp_path, caplog):
    (tmp_path / NAME).mkdir()
    bad = BadClips(folder=tmp_path)
    bad.add("a fault", Fault.TEXT)
    with pytest.raises(UserError, match=r"^a fault \(--on_bad_clip"):
        bad.settle(1)
    assert f"cannot write {tmp_path / NAME}" in caplog.text


def test_without_a_clip_to_hold_back_a_run_does_not_begin(spoiled, tmp_path):
    for i in range(2):
        (spoiled / f"wavs/clip0{i}.wav").write_text("no audio")
    with pytest.raises(UserError, match="none of the held-back clips can be used"):
        start(toy_config(), spoiled, tmp_path / "out", on_bad_clip="skip")


def test_clips_beyond_full_scale_are_counted(tmp_path, caplog):
    corpus = make_corpus(tmp_path / "c", clips=3)
    audio = soundfile.read(corpus / "wavs/clip01.wav", dtype="float32")[0]
    soundfile.write(corpus / "wavs/clip01.wav", audio * 5, RATE, subtype="FLOAT")
    for name, toy in TOYS.items():
        start(toy(), corpus, tmp_path / name, max_steps=1, batch_size=2)
    assert caplog.text.count("1 clip(s) have samples beyond full scale") == 2


def test_what_another_process_has_found_counts_here(monkeypatch):
    """By the clip's number: there its folder may be another one."""
    clips = [Path(f"here/{name}.wav") for name in "abc"]
    bad = BadClips("skip")
    bad.add("a.wav is silent", Fault.SILENT, clips[0])
    bad.paths.add(Path("not one of these"))
    theirs = {"c.wav is cut off": Fault.CUT_OFF}, [2]
    monkeypatch.setattr(distributed, "gather_objects", lambda ours: [theirs, ours])
    bad.gather(clips)
    assert bad.worst_first() == ["c.wav is cut off", "a.wav is silent"]
    assert bad.paths == {clips[0], clips[2], Path("not one of these")}
    assert bad.without(clips, "training") == [clips[1]]


def test_every_clip_is_read_once_and_has_its_number(tmp_path, monkeypatch):
    """Of more than are read ahead; a bad one among them has one, too."""
    monkeypatch.setattr(read_clips, "AHEAD", 3)
    clips = [tmp_path / f"{number}.wav" for number in range(8)]
    for number, clip in enumerate(clips):
        soundfile.write(clip, np.full(1000 + number, 0.1), RATE)
    clips[4].write_bytes(b"no wav")
    bad = BadClips("skip")
    found = {number: len(audio) for number, audio in read_clips.read_all(clips, RATE, bad)}
    assert found == {number: 1000 + number for number in range(8) if number != 4}
    assert bad.paths == {clips[4]}
