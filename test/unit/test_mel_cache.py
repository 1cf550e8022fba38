"""Mel spectrograms of clips are computed once, kept in files, and computed anew where anything has changed."""

import hashlib
import io
import logging
import multiprocessing
import os
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import files
from common.audio import MelSpectrogram
from common.config import AudioConfig
from common.program import UserError
from conftest import RATE, make_corpus
from runs import start
from tacotron2 import data as module
from tacotron2.config import DataConfig
from tacotron2.data import (
    MelCache,
)

CONFIG = DataConfig()


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


def test_a_clip_that_has_changed_is_computed_anew(corpus, cache):
    wav = corpus / "wavs/clip00.wav"
    before = cache(wav)
    soundfile.write(wav, np.random.default_rng(0).uniform(-0.5, 0.5, before.shape[1] * 256), RATE)
    assert not torch.equal(cache(wav), before)
    assert cache.mel.count == 2


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


def test_a_clip_that_is_gone_is_named(corpus, cache):
    (corpus / "wavs/clip02.wav").unlink()
    with pytest.raises(UserError, match=r"clip02\.wav: No such file"):
        cache(corpus / "wavs/clip02.wav")


def test_two_loaders_of_a_training_fill_the_cache(toy, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", seconds=0.2)
    start(toy, corpus, tmp_path / "out", max_steps=3, workers=2)
    assert len(list((tmp_path / "out/mels").iterdir())) == 13


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.b.wav", 0.3 * np.sin(np.arange(3000) / 9), RATE)
    return tmp_path / "a.b.wav"


def cache_of(folder, bands=6, **settings):
    config = replace(CONFIG, **settings)
    audio = {each.name: getattr(config, each.name) for each in fields(AudioConfig)}
    return MelCache(folder, config, MelSpectrogram(**audio, n_mel_channels=bands))


def test_a_spectrogram_is_kept_under_the_clip_s_name_with_a_checksum(wav, tmp_path):
    mel = cache_of(tmp_path / "mels")(wav)
    (path,) = (tmp_path / "mels").iterdir()
    assert re.fullmatch(r"a\.b_[0-9a-f]{8}\.npy", path.name)
    array, checksum = path.read_bytes()[:-32], path.read_bytes()[-32:]
    assert np.array_equal(np.load(io.BytesIO(array)), mel.numpy()) and len(checksum) == hashlib.sha256().digest_size


@pytest.mark.parametrize(
    "settings",
    [
        {"filter_length": 2048}, {"hop_length": 128}, {"win_length": 800}, {"mel_fmin": 20.0}, {"mel_fmax": 7000.0},
        {"bands": 8},
    ],
)  # fmt: skip
def test_a_spectrogram_of_other_settings_is_another_one(wav, tmp_path, settings):
    plain, other = cache_of(tmp_path / "mels"), cache_of(tmp_path / "mels", **settings)
    assert not torch.equal(plain(wav), other(wav)) and len(list((tmp_path / "mels").iterdir())) == 2
    assert torch.equal(plain(wav), cache_of(tmp_path / "none")(wav))


def test_what_cannot_be_read_is_made_anew(wav, tmp_path, monkeypatch, caplog):
    cache = cache_of(tmp_path / "mels")
    mel = cache(wav)
    (path,) = (tmp_path / "mels").iterdir()

    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "open_input", broken)
    assert torch.equal(cache(wav), mel)
    assert caplog.messages == [f"cannot read {path}: Input/output error; the mel spectrogram is made anew"]


def test_where_nothing_can_be_written_it_is_tried_once(wav, tmp_path, monkeypatch, caplog):
    tries = []

    def full(path):
        tries.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "written_whole", full)
    caplog.set_level(logging.WARNING)
    cache = cache_of(tmp_path / "mels")
    assert torch.equal(cache(wav), cache(wav))
    assert len(tries) == 1
    assert caplog.messages == [
        f"cannot write {tries[0]}: No space left on device; mel spectrograms are computed each time"
    ]
