"""Clips with their transcripts: mistakes are named, samples and symbols are counted."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import tacotron2.data
from common.bad_clips import NAME, BadClips
from common.corpus import find_clips
from common.program import UserError
from conftest import RATE
from runs import start
from tacotron2.config import Config, DataConfig
from tacotron2.data import (
    REMARKS_SHOWN,
    count_samples_and_symbols,
    find_utterances,
)
from tacotron2.train import report_census

CONFIG = DataConfig()


def transcripts(corpus, content):
    """What of a metadata.csv with this content is learned and held back."""
    (corpus / "metadata.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    training, held_back = find_utterances(CONFIG, str(corpus))
    return {clip.path.stem: clip.text for clip in held_back + training}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clip00|One.\nclip01\n", "line 2 has 1 columns split by |, must be 2 or 3"),
        ("clip00|One.\nclip99|Two.\n", "line 2: there is no wavs/clip99.wav"),
        (b"clip00|One.\nclip01|\xff\n", "is not UTF-8 text: byte 19 is 0xff"),
        ("clip00|One.\n", "at least 2 clips are needed"),
        ("", "at least 2 clips are needed"),
    ],
)
def test_a_mistake_in_a_transcript_is_named(corpus, content, message):
    with pytest.raises(UserError) as error:
        transcripts(corpus, content)
    assert message in str(error.value)
    assert "metadata.csv" in str(error.value) or "clips are needed" in message


def test_mistakes_that_leave_too_few_clips_are_named(corpus):
    """Rather than that there are too few, by who gathers the mistakes, too."""
    (corpus / "metadata.csv").write_text("clip00|One.\nclip01\n")
    with pytest.raises(UserError, match="line 2 has 1 columns"):
        find_utterances(CONFIG, str(corpus), BadClips())


def test_where_no_line_can_be_read_it_is_said_why(corpus, tmp_path):
    names = [line.split("|")[0] for line in (corpus / "metadata.csv").read_text().splitlines()]
    (corpus / "metadata.csv").write_text("".join(f"{name}|anna|A tone.|A tone.\n" for name in names))
    bad = BadClips(folder=tmp_path)
    with pytest.raises(UserError, match=r"metadata.csv line 1 has 4 columns split by \|, must be 2 or 3"):
        tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus), bad)
    assert len((tmp_path / NAME).read_text().splitlines()) == len(names)


def test_a_missing_transcript_is_named(corpus):
    (corpus / "metadata.csv").unlink()
    with pytest.raises(UserError, match=r"metadata\.csv is missing: Tacotron2 needs a transcript"):
        find_utterances(CONFIG, str(corpus))


def test_clips_without_a_transcript_are_left_out_and_counted(corpus, caplog):
    assert len(transcripts(corpus, "clip03|One.\nclip05|Two.\n")) == 2
    assert "11 of 13 clips are left out" in caplog.text
    caplog.clear()
    transcripts(corpus, "".join(f"clip{i:02}|One.\n" for i in range(12)))
    assert "1 of 13 clips are left out" in caplog.text
    caplog.clear()
    transcripts(corpus, "".join(f"clip{i:02}|One.\n" for i in range(13)))
    assert not caplog.text


def test_nvidias_file_lists(corpus, tmp_path):
    lists = [tmp_path / name for name in ("train.txt", "validation.txt")]
    for path, numbers in zip(lists, ((1, 2, 3), (4,))):
        path.write_text("".join(f"{corpus}/wavs/clip{i:02}.wav|Text {i}.\n" for i in numbers))
    config = DataConfig(training_files=str(lists[0]), validation_files=str(lists[1]))
    training, held_back = find_utterances(config, "")
    assert [clip.text for clip in training] == ["Text 1.", "Text 2.", "Text 3."]
    assert [clip.path for clip in held_back] == [corpus / "wavs/clip04.wav"]
    # a corpus given as well decides
    assert len(find_utterances(config, str(corpus))[0]) == 12
    lists[0].write_text("a.wav|One.|One.\n")
    with pytest.raises(UserError, match=r"train\.txt line 1 has 3 columns split by \|, must be 2$"):
        find_utterances(config, "")
    lists[0].write_text(f"{corpus}/wavs/clip00.wav|Text 0.\n")
    lists[1].write_text("\n")
    with pytest.raises(UserError, match=r"validation\.txt lists no clips"):
        find_utterances(config, "")
    with pytest.raises(UserError, match=r"validation\.txt lists no clips"):
        find_clips("", str(lists[1]))


def clips_of(corpus):
    training, held_back = find_utterances(CONFIG, str(corpus))
    return held_back + training


def test_the_census_counts_samples_and_symbols(corpus):
    samples, symbols = count_samples_and_symbols(clips_of(corpus), CONFIG)
    assert samples == [int(0.4 * RATE)] * 13
    assert symbols == [len("A tone.")] * 13


def test_a_clip_of_one_frame_at_full_scale_is_used(corpus, caplog):
    """As long as a frame, as loud as a sample can be: nothing is to be said."""
    audio = np.resize([1.0, -1.0, 0.5], CONFIG.filter_length)
    soundfile.write(corpus / "wavs/clip03.wav", audio, RATE, subtype="FLOAT")
    samples, _ = count_samples_and_symbols(clips_of(corpus), CONFIG)
    assert samples[3] == CONFIG.filter_length and not caplog.text


def test_of_many_remarks_that_on_loudness_is_the_first(corpus, caplog):
    for number, peaks in ((3, [1.5, -1.0]), (4, [1.0, -1.5])):
        soundfile.write(corpus / f"wavs/clip0{number}.wav", np.resize(peaks, 9000), RATE, subtype="FLOAT")
    clips = [replace(clip, text=f"{clip.text} \u4e2d") for clip in clips_of(corpus)]
    count_samples_and_symbols(clips, CONFIG)
    said = [record.message for record in caplog.records]
    assert said[0] == "2 clip(s) have samples beyond full scale, which are clipped"
    assert [line[:10] for line in said[1:-1]] == [f"clip{number:02}.wav" for number in range(REMARKS_SHOWN - 1)]
    assert said[-1] == f"... and {13 - REMARKS_SHOWN + 1} more such remarks"


def test_letters_are_not_lost_in_words_that_the_dictionary_speaks(corpus, tmp_path, caplog):
    (tmp_path / "own.dict").write_text("hello HH\n")
    own = dict(symbols=["_", " ", "@HH"], dictionary=str(tmp_path / "own.dict"), text_cleaners=["basic_cleaners"])
    clips = [replace(clip, text=text) for clip, text in zip(clips_of(corpus), ("Hello", "Hello Hi"))]
    count_samples_and_symbols(clips, replace(CONFIG, **own))
    assert [record.message for record in caplog.records] == ["clip01.wav: left out: 'H', 'i'"]


def test_as_many_remarks_as_are_shown_are_all_there_are(corpus, caplog):
    clips = clips_of(corpus)
    said = [replace(clip, text="A \u4e2d.") if i < REMARKS_SHOWN else clip for i, clip in enumerate(clips)]
    count_samples_and_symbols(said, CONFIG)
    assert [record.message[:10] for record in caplog.records] == [f"clip{i:02}.wav" for i in range(REMARKS_SHOWN)]


def test_the_log_says_how_much_there_is_to_learn(corpus, caplog):
    caplog.set_level(logging.INFO)
    soundfile.write(corpus / "wavs/clip03.wav", np.full(2 * RATE, 0.1), RATE)
    clips = clips_of(corpus)
    clips[5] = replace(clips[5], text="A long tone.")
    report_census(clips, Config(), BadClips())
    seconds = 12 * int(0.4 * RATE) / RATE + 2
    said = f"data: 13 clips, {seconds:.0f} s, the longest 2.0 s; {12 * 7 + 12} symbols, at most 12 in a clip"
    assert caplog.records[-1].message == said


def test_clips_that_cannot_be_used_are_named(corpus, toy, tmp_path):
    soundfile.write(corpus / "wavs/clip03.wav", np.zeros(1023), RATE)
    (corpus / "wavs/clip04.wav").write_bytes(b"no wav")
    lines = (corpus / "metadata.csv").read_text().replace("clip05|A tone.|A tone.", "clip05|\u4e2d|\u200b\u200b")
    (corpus / "metadata.csv").write_text(lines)
    with pytest.raises(UserError) as error:
        start(toy, corpus, tmp_path / "out")
    assert "3 of 13 clips cannot be used" in str(error.value)
    assert "clip03.wav has 1023 samples, fewer than a frame's 1024" in str(error.value)
    assert "clip04.wav" in str(error.value)
    assert "clip05.wav: of its text '\\u200b\\u200b' nothing is left to speak" in str(error.value)
