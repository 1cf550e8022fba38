"""Tacotron2's mels of a corpus: what is written and measured of a batch, and what counts as done."""

import argparse
import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from common.evaluation.metrics import mel_cepstral_distortion, mel_l1
from common.program import UserError
from conftest import RATE
from tacotron2 import teacher_forced
from tacotron2.alignment import alignment_quality
from tacotron2.config import Config, DataConfig, build_mel
from tacotron2.model import Utterance
from tacotron2.teacher_forced import (
    Measured,
    data_of,
    is_whole,
    mel_name,
    mel_shape,
    newest_transcript,
    predict_batch,
    recorded_mel,
    report,
)

SYNTHESIZER = SimpleNamespace(path="a checkpoint", config=Config(), mel=build_mel(Config()))


@pytest.fixture
def batch(monkeypatch):
    """Items of two clips, and what is predicted of them."""
    items = [{"names": name, "mel": torch.rand(80, length)} for name, length in (("a.wav", 5), ("b.c.wav", 7))]
    predicted = []
    for item, diagonality in zip(items, (0.7, 0.4), strict=True):
        mel, alignment = item["mel"] + torch.rand(80, 1), torch.rand(3, 4)
        _, coverage = alignment_quality(alignment)
        predicted.append(Utterance(mel, mel.shape[1], True, alignment, torch.rand(3), diagonality, coverage))
    asked = []
    monkeypatch.setattr(teacher_forced, "predict", lambda *given: asked.append(given) or predicted)
    return items, predicted, asked


def test_a_batch_is_written_by_the_names_of_its_clips_and_measured(batch, tmp_path):
    items, predicted, asked = batch
    found = predict_batch(items, SYNTHESIZER, 5, tmp_path)
    assert asked == [(items, SYNTHESIZER, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.c.npy"]
    for item, each, name in zip(items, predicted, ("a", "b.c"), strict=True):
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), each.mel.numpy())
        distances = mel_l1(item["mel"], each.mel), mel_cepstral_distortion(item["mel"], each.mel)
        assert found[f"{name}.wav"] == Measured(*distances, each.diagonality)
    assert list(found) == ["a.wav", "b.c.wav"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_mel_that_is_not_finite_is_not_written(batch, tmp_path, value):
    items, predicted, _ = batch
    predicted[1].mel[0, 0] = value
    with pytest.raises(UserError, match=r"mel spectrogram of b\.c\.wav is not finite: a checkpoint is not usable here"):
        predict_batch(items, SYNTHESIZER, 5, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_mel_that_cannot_be_written_is_named(batch, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write .*file/a\.npy: "):
        predict_batch(batch[0], SYNTHESIZER, 5, tmp_path / "file")


@pytest.mark.parametrize(("at", "since", "whole"), [(100, 100, True), (100, 99, True), (100, 101, False)])
def test_a_mel_is_done_if_it_is_not_older_than_what_it_is_made_of(tmp_path, at, since, whole):
    np.save(tmp_path / "a.npy", np.zeros((80, 5), np.float32))
    os.utime(tmp_path / "a.npy", (at, at))
    assert is_whole(tmp_path / "a.npy", (80, 5), since) == whole


def test_what_is_no_mel_of_its_shape_is_made_again(tmp_path):
    path = tmp_path / "a.npy"
    assert not is_whole(path, (80, 5), 0)
    for shape in ((80, 4), (80, 6), (5, 80), (80, 5, 1)):
        np.save(path, np.zeros(shape, np.float32))
        assert not is_whole(path, (80, 5), 0)
    np.save(path, np.zeros((80, 5), np.float32))
    content = path.read_bytes()
    assert is_whole(path, (80, 5), 0)
    for damaged in (content[:-1], content[:50], b"", b"no array"):
        path.write_bytes(damaged)
        assert not is_whole(path, (80, 5), 0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError):
        is_whole(path, (80, 5), 0)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (255, 1), (256, 2), (1000, 4), (1024, 5)])
def test_a_mel_is_as_long_as_its_recording_s(tmp_path, samples, frames):
    assert mel_shape(samples, SYNTHESIZER) == (80, frames)
    if samples > 999:
        soundfile.write(tmp_path / "a.wav", np.full(samples, 0.25), RATE)
        mel = recorded_mel(tmp_path / "a.wav", SYNTHESIZER)
        assert mel.shape == (80, frames)
        assert torch.equal(mel, SYNTHESIZER.mel(torch.full((1, samples), 0.25))[0])
    assert mel_name(tmp_path / "a.b.wav") == "a.b.npy"


def test_the_corpus_is_that_of_the_options(tmp_path):
    """Not the lists of the training, from which how texts are read is taken alone."""
    own = DataConfig(training_files="own", validation_files="held", text_cleaners=["basic_cleaners"])
    args = argparse.Namespace(training_files="list", data_path="")
    data = data_of(args, SimpleNamespace(config=Config(data_config=own)))
    assert (data.training_files, data.validation_files, data.text_cleaners) == ("list", "", ["basic_cleaners"])
    (tmp_path / "metadata.csv").touch()
    (tmp_path / "list").touch()
    for name, time in (("metadata.csv", 100), ("list", 200)):
        os.utime(tmp_path / name, (time, time))
    data.training_files = str(tmp_path / "list")
    assert newest_transcript(args, data) == 200
    args.data_path = str(tmp_path)
    assert newest_transcript(args, data) == 100


def test_where_all_is_done_no_means_are_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report({}, 3, tmp_path)
    assert caplog.messages == [f"{tmp_path} holds the mels of all 3 clips: train WaveGlow with --mels_path={tmp_path}"]
    caplog.clear()
    report({"a.wav": Measured(1.0, 2.0, 0.75), "b.wav": Measured(2.0, 4.0, 0.85)}, 3, tmp_path)
    assert caplog.messages[0] == "beside the recordings: mel L1 1.500, MCD 3.00 dB, diagonality of attention 0.80"
    assert len(caplog.messages) == 2
