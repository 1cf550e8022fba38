"""A corpus on a card: its clips, segments and padded batches, told from each other by what they hold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tacotron2.config
import waveglow.config
from common.config_reading import from_dict
from common.program import UserError
from conftest import RATE, toy_config, toy_tacotron2_config
from runs import CPU
from tacotron2.text import text_to_sequence
from tools.voice import corpus_on_card as module
from tools.voice.corpus_on_card import Corpus, Segments, Utterances, load_corpus, padded

LENGTHS = np.array([3000, 9000, 5000, 2049, 7000, 2048, 8000])
TEXTS = ["a b c.", "b.", "c c c c.", "d d.", "e.", "f f f.", "g g g g g g."]


@pytest.fixture
def corpus():
    """Clips of different loudness and length."""
    clips = [torch.full((length,), 1000 * (number + 1), dtype=torch.int16) for number, length in enumerate(LENGTHS)]
    return Corpus(torch.cat(clips), LENGTHS, TEXTS)


def config_of(package, values, data=None, **train):
    values = values | {"data_config": values.get("data_config", {}) | (data or {})}
    values["train_config"] = values["train_config"] | train
    return from_dict(package.Config, values)


def test_clips_lie_one_behind_the_other(corpus):
    assert corpus.starts().tolist() == [0, 3000, 12000, 17000, 19049, 26049, 28097]
    clips = list(corpus.clips())
    assert [len(clip) for clip in clips] == LENGTHS.tolist()
    for number, clip in enumerate(clips):
        assert torch.equal(clip, torch.full((len(clip),), 1000 * (number + 1) / 32768))


def test_a_corpus_is_read_as_16_bit_with_its_texts(monkeypatch):
    found = [SimpleNamespace(path=str(i), text=f"Text {i}.") for i in range(3)]
    monkeypatch.setattr(module, "find_utterances", lambda data, folder: (found, [SimpleNamespace(path="held back")]))
    monkeypatch.setattr(module, "read_wav", lambda path, rate: np.full(rate * (int(path) + 1), 0.25, np.float32))
    made = load_corpus("folder", config_of(tacotron2.config, toy_tacotron2_config()), CPU)
    assert made.lengths.tolist() == [RATE, 2 * RATE, 3 * RATE]
    assert (made.audio.dtype, len(made.audio), set(made.audio.tolist())) == (torch.int16, 6 * RATE, {8192})
    assert made.texts == ["Text 0.", "Text 1.", "Text 2."]


def test_clips_are_counted_and_their_hours_by_the_rate_of_the_configuration(monkeypatch, caplog):
    caplog.set_level("INFO")
    found = [SimpleNamespace(path="a", text="A.")] * 24
    monkeypatch.setattr(module, "find_utterances", lambda data, folder: (found, []))
    monkeypatch.setattr(module, "read_wav", lambda path, rate: np.zeros(15 * rate, np.float32))
    load_corpus("folder", config_of(tacotron2.config, toy_tacotron2_config(), {"sampling_rate": 16000}), CPU)
    assert caplog.messages == ["data: 24 clips, 0.10 h"]


def test_segments_come_from_clips_that_are_longer(corpus):
    config = config_of(waveglow.config, toy_config(), batch_size=100)  # of 2048 samples
    segments = Segments(corpus, config, CPU)
    assert segments.starts.tolist() == [0, 3000, 12000, 17000, 19049, 28097]
    assert segments.lasts.tolist() == [952, 6952, 2952, 1, 4952, 5952]
    torch.manual_seed(0)
    batch = segments.batch()
    assert (batch["audio"].shape, batch["mel"].shape) == ((100, 2048), (100, 6, 9))
    first = batch["audio"][:, :1]
    assert {round(value * 32.768) for value in first.flatten().tolist()} == {1, 2, 3, 4, 5, 7}
    assert (batch["audio"] == first).all()  # of one clip each


def test_segments_lie_within_a_clip(corpus):
    """With samples that tell where they are from; so many come from every longer clip, and from all of it."""
    config = config_of(waveglow.config, toy_config(), batch_size=1000)
    starts, lengths, size = corpus.starts(), corpus.lengths, config.data_config.segment_length
    numbered = torch.arange(len(corpus.audio), dtype=torch.int32)
    corpus = SimpleNamespace(audio=numbered, lengths=lengths, starts=corpus.starts)
    found = (Segments(corpus, config, CPU).batch()["audio"] * 32768).numpy().astype(int)
    assert found.shape == (1000, size)
    assert (np.diff(found) == 1).all()
    clips = np.searchsorted(starts, found[:, 0], side="right") - 1
    assert set(clips) == set(np.flatnonzero(lengths > size))
    places = (found[:, 0] - starts[clips]) / (lengths[clips] - size)
    assert places.min() < 0.1
    assert 0.9 < places.max() <= 1


def test_segments_have_their_spectrograms(corpus):
    config = config_of(waveglow.config, toy_config())
    batch = Segments(corpus, config, CPU).batch()
    expected = waveglow.config.build_mel(config)(batch["audio"])
    assert torch.equal(batch["mel"], expected)


def test_without_a_clip_that_is_longer_there_are_none(corpus):
    config = config_of(waveglow.config, toy_config(), {"segment_length": 9000})
    with pytest.raises(UserError, match=r"^no clip is longer than WaveGlow's segment_length of 9000 samples$"):
        Segments(corpus, config, CPU)
    Segments(corpus, config_of(waveglow.config, toy_config(), {"segment_length": 8999}), CPU)


def utterances_of(corpus, buckets=2, data=None, **train):
    config = config_of(tacotron2.config, toy_tacotron2_config(), data, **({"batch_size": 2, "seed": 5} | train))
    return Utterances(corpus, config, CPU, buckets), config


def test_clips_of_about_one_length_are_padded_to_the_longest_of_them(corpus):
    utterances, config = utterances_of(corpus)
    short, long = utterances.buckets
    mel = tacotron2.config.build_mel(config)
    for bucket, clips in ((short, [5, 3, 0, 2]), (long, [4, 6, 1])):  # by length
        ids = [text_to_sequence(TEXTS[clip], ["english_cleaners"]) for clip in clips]
        frames = [1 + LENGTHS[clip] // 256 for clip in clips]
        assert bucket["text_lengths"].tolist() == [len(each) for each in ids]
        assert bucket["mel_lengths"].tolist() == frames
        assert bucket["text"].shape == (len(clips), max(map(len, ids)))
        assert bucket["mel"].shape == (len(clips), 6, -(-max(frames) // 16) * 16)
        assert bucket["mel"].dtype == torch.float16
        for row, clip in enumerate(clips):
            assert bucket["text"][row].tolist() == ids[row] + [0] * (bucket["text"].shape[1] - len(ids[row]))
            audio = torch.full((LENGTHS[clip],), 1000 * (clip + 1) / 32768)
            assert (bucket["mel"][row, :, : frames[row]] - mel(audio[None])[0]).abs().max() < 0.005
            assert not bucket["mel"][row, :, frames[row] :].any()


@pytest.mark.parametrize(("buckets", "batch_size", "made"), [(8, 2, 3), (8, 3, 2), (8, 4, 1), (1, 2, 1), (2, 1, 2)])
def test_a_length_has_a_batch_at_least(corpus, buckets, batch_size, made):
    utterances, _ = utterances_of(corpus, buckets, batch_size=batch_size)
    assert len(utterances.buckets) == made
    assert min(len(bucket["text"]) for bucket in utterances.buckets) >= batch_size
    firsts = utterances.first_batches()
    for first, bucket in zip(firsts, utterances.buckets, strict=True):
        assert first["mel"].dtype == torch.float32
        for name, tensor in first.items():
            assert torch.equal(tensor, bucket[name][:batch_size].to(tensor.dtype))


@pytest.mark.parametrize(("batch_size", "refused"), [(7, False), (8, True)])
def test_a_batch_needs_as_many_clips(corpus, batch_size, refused):
    if not refused:
        utterances_of(corpus, batch_size=batch_size)
        return
    with pytest.raises(UserError, match=r"^7 clips do not make Tacotron2's batch_size of 8: lower it$"):
        utterances_of(corpus, batch_size=batch_size)


def epochs(corpus, seed, count=3):
    """The clips of each batch, by their lengths, and the number of the batch's length."""
    utterances, _ = utterances_of(corpus, seed=seed)
    made = []
    for _, (number, batch) in zip(range(3 * count), utterances.batches()):
        bucket = utterances.buckets[number]
        assert batch["mel"].dtype == torch.float32
        assert all(tensor.shape[1:] == bucket[name].shape[1:] for name, tensor in batch.items())
        assert len(batch["text"]) == 2
        made.append((number, tuple(zip(batch["mel_lengths"].tolist(), batch["text_lengths"].tolist()))))
    return made


def test_each_epoch_is_drawn_anew_by_the_seed_of_the_configuration(corpus):
    """Of 4 and 3 clips: two batches of the first length, one of the second; no clip twice in an epoch."""
    made = epochs(corpus, seed=5, count=20)
    for start in range(0, len(made), 3):
        epoch = made[start : start + 3]
        assert sorted(number for number, _ in epoch) == [0, 0, 1]
        clips = [clip for _, batch in epoch for clip in batch]
        assert len(set(clips)) == 6
    assert len({tuple(number for number, _ in made[start : start + 3]) for start in range(0, 60, 3)}) == 3
    assert len({clip for number, batch in made if number for clip in batch}) == 3  # another one is left out each time
    assert made == epochs(corpus, seed=5, count=20) != epochs(corpus, seed=6, count=20)


def test_texts_are_read_with_the_cleaners_and_the_dictionary_of_the_configuration(corpus, tmp_path):
    (tmp_path / "own.dict").write_text("B  HH AH1\n")
    utterances, config = utterances_of(
        corpus, 1, {"text_cleaners": ["basic_cleaners"], "dictionary": str(tmp_path / "own.dict")}
    )
    row = utterances.buckets[0]["text"][6][: int(utterances.buckets[0]["text_lengths"][6])]  # the longest clip: "b."
    assert row.tolist() == text_to_sequence("{HH AH1}.", ["basic_cleaners"])
    assert config.data_config.dictionary


def test_symbols_and_their_number_fit_together(corpus):
    values = toy_tacotron2_config()
    values["tacotron2_config"]["n_symbols"] = 5
    with pytest.raises(UserError, match=r"the configuration has 5 symbols, .*: n_symbols must be their number"):
        Utterances(corpus, config_of(tacotron2.config, values, batch_size=2), CPU, 2)


def test_frames_are_padded_to_a_multiple_of_16():
    for frames, whole in ((15, 16), (16, 16), (17, 32)):
        made = padded([torch.tensor([1, 2])], [torch.ones(3, frames)], CPU)
        assert (made["mel"].shape, made["mel_lengths"].tolist()) == ((1, 3, whole), [frames])
