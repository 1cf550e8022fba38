"""What Tacotron2 gives the training loop: clips, batches, the size of an epoch, and what it says of the alignment."""

import logging
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from conftest import RATE, make_corpus
from runs import make_run
from tacotron2 import train

LENGTHS = [4000 + 500 * i for i in range(13)]


@pytest.fixture
def corpus(tmp_path):
    """13 clips, each longer than the one before; the first is held back."""
    folder = make_corpus(tmp_path / "corpus", seconds=0.2)
    for i, length in enumerate(LENGTHS):
        soundfile.write(folder / f"wavs/clip{i:02}.wav", 0.1 * np.sin(np.arange(length)), RATE)
    return folder


def names(task, count=3):
    return [batch["names"] for batch in islice(task.batches(0, 0), count)]


def test_an_epoch_is_of_the_training_clips_and_a_clip_as_long_as_their_mean(toy, corpus, tmp_path):
    task = train.make_task(make_run(toy, tmp_path / "out"), str(corpus))
    assert task.clips_per_epoch == 12
    assert task.samples_per_clip == sum(LENGTHS[1:]) // 12
    (first,) = names(task, 1)
    assert len(first) == 4 and "clip00.wav" not in [name for batch in names(task) for name in batch]


def test_the_order_is_drawn_from_the_seed_of_the_training(toy, corpus, tmp_path):
    orders = [names(train.make_task(make_run(toy, tmp_path / "out", seed=seed), str(corpus))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_clips_that_are_skipped_are_in_no_count(toy, corpus, tmp_path, caplog):
    """Neither in the log's nor in the length of a clip."""
    caplog.set_level(logging.INFO)
    soundfile.write(corpus / "wavs/clip12.wav", np.zeros(LENGTHS[12]), RATE)
    task = train.make_task(make_run(toy, tmp_path / "out", on_bad_clip="skip"), str(corpus))
    assert (task.clips_per_epoch, task.samples_per_clip) == (11, sum(LENGTHS[1:12]) // 11)
    seconds = sum(LENGTHS[:12]) / RATE
    said = f"data: 12 clips, {seconds:.0f} s, the longest {LENGTHS[11] / RATE:.1f} s; {12 * 7} symbols, at most 7"
    assert said in caplog.text


@pytest.mark.parametrize("dictionary", ["", "words.dict"])
def test_all_processes_must_have_the_same_corpus(toy, corpus, tmp_path, monkeypatch, dictionary):
    """The clips with their texts, the held-back ones too, and the dictionary that reads them."""
    compared = []
    monkeypatch.setattr(train, "agree_on_corpus", lambda *given: compared.append(given))
    path = tmp_path / "words.dict"
    path.write_text("TONE  T OW1\n")
    toy["data_config"] = {"dictionary": str(path)} if dictionary else {}
    train.make_task(make_run(toy, tmp_path / "out"), str(corpus))
    ((clips, texts, others),) = compared
    assert sorted(clip.name for clip in clips) == [f"clip{i:02}.wav" for i in range(13)]
    assert texts == ["A tone."] * 13
    assert others == ({"the dictionary": path} if dictionary else {})


@pytest.mark.parametrize(
    ("steps", "diagonality", "warned"),
    [(9, 0.0, False), (10, 0.0, True), (10, 0.69, True), (10, 0.7, False), (11, 0.71, False), (9, 0.71, False)],
)
def test_an_alignment_is_missed_from_a_step_on_and_below_a_measure(caplog, steps, diagonality, warned):
    caplog.set_level(logging.INFO)
    settings = SimpleNamespace(align_by=10)
    progress = SimpleNamespace(iteration=steps + 100, steps=steps)
    run = SimpleNamespace(progress=progress, config=SimpleNamespace(train_config=settings))
    train.report_alignment(run, diagonality)
    first, *others = (record.getMessage() for record in caplog.records)
    assert first == f"iteration {steps + 100}: alignment diagonality:{diagonality:.3f}"
    assert len(others) == warned
    if warned:
        assert others[0].startswith(
            f"iteration {steps + 100}: still no diagonal alignment ({diagonality:.2f} of 1, 0.7"
        )
