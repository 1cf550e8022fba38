"""Mel spectrograms of clips are computed once, kept in files, and computed anew where anything has changed."""

import multiprocessing
import os

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import files
from common.audio import MelSpectrogram
from common.program import UserError
from conftest import RATE, make_corpus
from runs import start
from tacotron2.config import DataConfig
from tacotron2.data import (
    MelCache,
    Utterances,
    find_utterances,
)
from tacotron2.text import text_to_sequence

CONFIG = DataConfig()


def clips_of(corpus):
    training, held_back = find_utterances(CONFIG, str(corpus))
    return held_back + training


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


def test_a_clip_that_cannot_be_read_any_more(corpus, cache, caplog):
    clips = clips_of(corpus)
    (corpus / "wavs/clip02.wav").unlink()
    with pytest.raises(UserError, match=r"clip02\.wav: No such file"):
        Utterances(clips, CONFIG, cache, "stop")[2]
    assert Utterances(clips, CONFIG, cache, "skip")[2]["names"] == "clip03.wav"
    assert "skipped: " in caplog.text


def test_what_the_model_gets_of_a_clip(corpus, cache):
    item = Utterances(clips_of(corpus), CONFIG, cache, "stop")[(5, 2)]
    assert item["names"] == "clip02.wav"
    assert item["text"].tolist() == text_to_sequence("A tone.", ["english_cleaners"])
    assert torch.equal(item["mel"], cache(corpus / "wavs/clip02.wav"))


def test_two_loaders_of_a_training_fill_the_cache(toy, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", seconds=0.2)
    start(toy, corpus, tmp_path / "out", max_steps=3, workers=2)
    assert len(list((tmp_path / "out/mels").iterdir())) == 13
