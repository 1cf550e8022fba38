"""Clips with their transcripts: mistakes are named; mel spectrograms are computed once; batches are of like lengths."""

import logging
import multiprocessing
import os
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import files
from common.audio import MelSpectrogram
from common.bad_clips import BadClips
from common.corpus import find_clips
from common.program import UserError
from common.training.batches import StepSampler
from conftest import RATE, make_corpus
from runs import start
from tacotron2.config import Config, DataConfig
from tacotron2.data import (
    REMARKS_SHOWN,
    MelCache,
    Utterances,
    bucketed,
    collate,
    count_samples_and_symbols,
    find_utterances,
)
from tacotron2.text import text_to_sequence
from tacotron2.train import report_census

CONFIG = DataConfig()


def transcripts(corpus, content):
    """What of a metadata.csv with this content is learned and held back."""
    (corpus / "metadata.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    training, held_back = find_utterances(CONFIG, str(corpus))
    return {clip.path.stem: clip.text for clip in held_back + training}


# ---- transcripts ----


@pytest.mark.parametrize(
    "content",
    [
        "clip00|One.\nclip01|Two.\n",
        "clip00|1.|One.\nclip01|2.|Two.",
        "\ufeffclip00|One.\r\nclip01|Two.\r\n\r\n",
        "\n  clip00 | One. \n\nclip01|Two.\n",
    ],
    ids=["two columns", "three columns, the last read", "BOM and CRLF", "blanks"],
)
def test_a_transcript_is_read(corpus, content):
    assert transcripts(corpus, content) == {"clip00": "One.", "clip01": "Two."}


def test_only_line_feeds_end_a_line(corpus):
    """Of other characters that Python takes for line ends a text may hold some."""
    text = "One\x0b two\x1c three\x85 four\u2028 five."
    assert transcripts(corpus, f"clip00|{text}\nclip01|Two.\n")["clip00"] == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clip00|One.\nclip01\n", "line 2 has 1 columns split by |, must be 2 or 3"),
        ("clip00|One.\nclip01|2.|Two.|2\n", "line 2 has 4 columns split by |, must be 2 or 3"),
        ("clip00|One.\n\nclip00|Two.\n", "line 3: clip00 occurs a second time"),
        ("clip00|One.\nclip01|\n", "line 2: the text of clip01 is empty"),
        ("clip00|One.\r\nclip01|2.| \r\n", "line 2: the text of clip01 is empty"),
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


def test_a_missing_transcript_is_named(corpus):
    (corpus / "metadata.csv").unlink()
    with pytest.raises(UserError, match=r"metadata\.csv is missing: Tacotron2 needs a transcript"):
        find_utterances(CONFIG, str(corpus))


def test_clips_without_a_transcript_are_left_out_and_counted(corpus, caplog):
    assert len(transcripts(corpus, "clip03|One.\nclip05|Two.\n")) == 2
    assert "11 of 13 clips are left out" in caplog.text


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
    for number in (3, 4):
        soundfile.write(corpus / f"wavs/clip0{number}.wav", np.resize([1.5, -1.0], 9000), RATE, subtype="FLOAT")
    clips = [replace(clip, text=f"{clip.text} \u4e2d") for clip in clips_of(corpus)]
    count_samples_and_symbols(clips, CONFIG)
    said = [record.message for record in caplog.records]
    assert said[0] == "2 clip(s) have samples beyond full scale, which are clipped"
    assert [line[:10] for line in said[1:-1]] == [f"clip{number:02}.wav" for number in range(REMARKS_SHOWN - 1)]
    assert said[-1] == f"... and {13 - REMARKS_SHOWN + 1} more such remarks"


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


# ---- the cache ----


class Counted(MelSpectrogram):
    """Notes each computation in a file, so that other processes can."""

    def __init__(self, log, n_mel_channels=6):
        super().__init__(n_mel_channels=n_mel_channels)
        self.log = log

    def forward(self, audio):
        with self.log.open("a") as file:
            file.write("computed\n")
        return super().forward(audio)

    @property
    def count(self):
        return len(self.log.read_text().splitlines())


@pytest.fixture
def cache(tmp_path):
    return MelCache(tmp_path / "mels", CONFIG, Counted(tmp_path / "log"))


def test_mels_are_computed_once(corpus, cache, tmp_path):
    wavs = sorted(corpus.glob("wavs/*"))
    first, again = ([cache(wav) for wav in wavs] for _ in range(2))
    assert cache.mel.count == len(wavs) == len(list((tmp_path / "mels").iterdir()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    audio = torch.from_numpy(soundfile.read(wavs[3], dtype="float32")[0])
    assert torch.equal(first[3], MelSpectrogram(n_mel_channels=6)(audio[None])[0])


def test_what_has_changed_is_computed_anew(corpus, cache, tmp_path):
    wav = corpus / "wavs/clip00.wav"
    before = cache(wav)
    soundfile.write(wav, np.random.default_rng(0).uniform(-0.5, 0.5, before.shape[1] * 256), RATE)
    assert not torch.equal(cache(wav), before)
    other = MelCache(cache.folder, CONFIG, Counted(tmp_path / "log", n_mel_channels=8))
    assert len(other(wav)) == 8
    lower = MelCache(cache.folder, DataConfig(mel_fmax=4000.0), cache.mel)
    lower(wav)
    assert cache.mel.count == 4


def rewritten(wav, seconds, audio):
    """The wav with other samples, its time that much later."""
    time = wav.stat().st_mtime_ns + round(seconds * 1e9)
    soundfile.write(wav, audio, RATE)
    os.utime(wav, ns=(time, time))


@pytest.mark.parametrize(("seconds", "more"), [(60, 0), (-60, 0), (0.001, 0), (0, 256)])
def test_a_wav_replaced_after_its_mel_was_kept_is_computed_anew(corpus, cache, seconds, more):
    """One of the same size, a little later or from an older archive, as well as one of the same time but longer."""
    wav = corpus / "wavs/clip00.wav"
    before = cache(wav)
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, soundfile.info(wav).frames + more)
    rewritten(wav, seconds, audio)
    expected = cache.mel(torch.from_numpy(soundfile.read(wav, dtype="float32")[0])[None])[0]
    assert torch.equal(cache(wav), expected) and not torch.equal(expected, before)


def test_wavs_of_one_name_size_and_time_are_told_apart(corpus, cache):
    wav, other = corpus / "wavs/clip00.wav", corpus / "other/clip00.wav"
    other.parent.mkdir()
    other.write_bytes((corpus / "wavs/clip01.wav").read_bytes())
    os.utime(other, ns=(wav.stat().st_mtime_ns,) * 2)
    assert not torch.equal(cache(wav), cache(other))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_file_is_said_and_written_again(corpus, cache, caplog, data):
    """Whatever bits are flipped, wherever it is cut off, whatever stands in its place, another clip's included."""
    wav = corpus / "wavs/clip00.wav"
    mel = cache(wav)
    cache(corpus / "wavs/clip01.wav")
    path, other = sorted(cache.folder.iterdir())
    whole = bytearray(path.read_bytes())
    damaged = whole[: data.draw(st.sampled_from([len(whole), 0, 1, 31, 32, 33]) | st.integers(0, len(whole)))]
    for bit in data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), max_size=8, unique=True)):
        if bit // 8 < len(damaged):
            damaged[bit // 8] ^= 1 << bit % 8
    if damaged == whole:
        damaged = data.draw(st.sampled_from([other.read_bytes(), b"x" * 500, bytes(whole) + b"x"]))
    path.write_bytes(damaged)
    caplog.clear()
    assert torch.equal(cache(wav), mel)
    assert caplog.text.count(f"{path} is damaged") == 1
    assert path.read_bytes() == whole
    caplog.clear()
    assert torch.equal(cache(wav), mel) and not caplog.text


def test_a_full_disk_costs_time_alone(corpus, cache, monkeypatch, caplog):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    wavs = sorted(corpus.glob("wavs/*"))
    mels = [cache(wav) for wav in wavs]
    assert torch.equal(cache(wavs[0]), mels[0])
    assert caplog.text.count("No space left on device") == 1
    assert list(cache.folder.iterdir()) == []


def fill(cache, wavs, start, results):
    start.wait(timeout=60)
    results.put([cache(wav).sum().item() for wav in wavs])


def test_several_processes_fill_the_cache_at_once(corpus, cache):
    """Each finds whole files or none, whoever wrote them."""
    wavs = sorted(corpus.glob("wavs/*"))
    context = multiprocessing.get_context("forkserver")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=fill, args=(cache, wavs, start, results), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert sums == [[cache(wav).sum().item() for wav in wavs]] * 4
    assert len(list(cache.folder.iterdir())) == len(wavs)
    assert len(wavs) <= cache.mel.count <= 4 * len(wavs)


# ---- batches ----


def test_a_clip_that_cannot_be_read_any_more(corpus, cache, caplog):
    clips = clips_of(corpus)
    (corpus / "wavs/clip02.wav").unlink()
    with pytest.raises(UserError, match=r"clip02\.wav: No such file"):
        Utterances(clips, CONFIG, cache, "stop")[2]
    assert Utterances(clips, CONFIG, cache, "skip")[2]["names"] == "clip03.wav"
    assert "skipped: " in caplog.text


def test_a_batch_is_padded_with_zeros():
    items = [
        {"names": name, "text": torch.arange(1, symbols + 1), "mel": torch.full((6, frames), -3.0)}
        for name, symbols, frames in (("a", 4, 9), ("b", 7, 5))
    ]
    batch = collate(items)
    assert batch["names"] == ["a", "b"]
    assert batch["text"].tolist() == [[1, 2, 3, 4, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]]
    assert batch["text_lengths"].tolist() == [4, 7] and batch["mel_lengths"].tolist() == [9, 5]
    assert batch["mel"].shape == (2, 6, 9)
    assert (
        (batch["mel"][0] == -3).all() and (batch["mel"][1, :, :5] == -3).all() and (batch["mel"][1, :, 5:] == 0).all()
    )


def test_what_the_model_gets_of_a_clip(corpus, cache):
    item = Utterances(clips_of(corpus), CONFIG, cache, "stop")[(5, 2)]
    assert item["names"] == "clip02.wav"
    assert item["text"].tolist() == text_to_sequence("A tone.", ["english_cleaners"])
    assert torch.equal(item["mel"], cache(corpus / "wavs/clip02.wav"))


@pytest.mark.parametrize(("clips", "batch_size"), [(1000, 8), (13, 4), (3, 4), (128, 8)])
def test_the_order_takes_each_clip_once_and_differs_by_epoch(clips, batch_size):
    lengths = np.random.default_rng(0).integers(1, 1000, clips).tolist()
    order = bucketed(lengths, batch_size, seed=5)
    for epoch in range(3):
        assert sorted(order(epoch)) == list(range(clips))
        assert (order(epoch) == bucketed(lengths, batch_size, seed=5)(epoch)).all()
    assert not (order(0) == order(1)).all()
    assert not (order(0) == bucketed(lengths, batch_size, seed=6)(0)).all()
    # no clip is always among those that make no batch
    left = [set(order(epoch)[clips // batch_size * batch_size :]) for epoch in range(20)]
    assert not set.intersection(*left) or clips < batch_size


def test_batches_hold_clips_of_like_lengths():
    """Of 1000 clips from 1 to 1000 long, 8 at a time: chance would spread them over 778 of 1000."""
    lengths = np.random.default_rng(0).permutation(1000) + 1
    order = bucketed(lengths.tolist(), 8, seed=5)
    for epoch in range(3):
        batches = lengths[order(epoch)].reshape(-1, 8)
        assert np.ptp(batches, axis=1).mean() < 80
        # and they come in no order of length
        assert abs(np.corrcoef(np.arange(125), batches.mean(axis=1))[0, 1]) < 0.3
    companions = [{tuple(sorted(batch)) for batch in order(epoch).reshape(-1, 8)} for epoch in range(2)]
    assert len(companions[0] & companions[1]) < 10


def test_processes_share_a_step_by_whole_batches():
    lengths = np.random.default_rng(0).permutation(64).tolist()
    order = bucketed(lengths, 4, seed=5)
    steps = zip(*(islice(StepSampler(order, 4, 1, rank, 2), 8) for rank in range(2)), strict=True)
    assert [clip for step in steps for batch in step for _, clip in batch] == order(0).tolist()


def test_two_loaders_of_a_training_fill_the_cache(toy, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", seconds=0.2)
    start(toy, corpus, tmp_path / "out", max_steps=3, workers=2)
    assert len(list((tmp_path / "out/mels").iterdir())) == 13
