"""What WaveGlow gives the training loop: batches, the size of an epoch, its start, what TensorBoard plays."""

import logging
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from common.bad_clips import BadClips
from conftest import RATE
from runs import make_run
from waveglow import train
from waveglow.config import build_mel
from waveglow.segment_mels import SegmentMels


def names(task, count=3):
    return [batch["names"] for batch in islice(task.batches(0, 0), count)]


def test_an_epoch_is_of_the_training_clips_and_a_clip_stands_for_a_segment(config, corpus, tmp_path):
    task = train.make_task(make_run(config[1], tmp_path / "out"), str(corpus))
    assert task.clips_per_epoch == 12
    assert task.samples_per_clip == config[1]["data_config"]["segment_length"] != RATE
    assert "clip00.wav" not in [name for batch in names(task) for name in batch]


def test_order_and_segments_are_drawn_from_the_seed_of_the_training(config, corpus, tmp_path):
    tasks = [train.make_task(make_run(config[1], tmp_path / "out", seed=seed), str(corpus)) for seed in (1, 1, 2)]
    orders = [names(task) for task in tasks]
    assert orders[0] == orders[1] != orders[2]
    audio = [next(task.batches(0, 0))["audio"] for task in tasks[:2]]
    assert torch.equal(*audio)


@pytest.mark.parametrize("loud", [0, 2])
def test_the_log_says_how_much_there_is_to_learn(config, corpus, tmp_path, caplog, loud):
    """Short clips, near-silent segments and such as are clipped among them."""
    caplog.set_level(logging.INFO)
    run = make_run(config[1], tmp_path / "out")
    length = run.config.data_config.segment_length
    clips = sorted((corpus / "wavs").iterdir())[:6]
    audio = 0.1 * np.sin(np.arange(2 * length))
    soundfile.write(clips[0], audio[: length - 1], RATE)
    soundfile.write(clips[1], np.concatenate([audio[:length], np.zeros(length)]), RATE)
    for clip in clips[2:4]:
        soundfile.write(clip, (np.where(np.arange(2 * length) == 5, -1.5, audio) if loud else audio), RATE, "FLOAT")
    for clip in clips[4:]:
        soundfile.write(clip, audio[:length], RATE)
    caplog.clear()
    train.report_census(clips, run.config, BadClips(), SegmentMels(run.config.data_config, build_mel(run.config)))
    samples = length - 1 + 3 * 2 * length + 2 * length
    first, *others = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"data: 6 clips, {samples / RATE:.0f} s; 1 shorter than a segment")
    assert "; 1 of 9 segments near-silent" in first
    assert others == ["2 clip(s) have samples beyond full scale, which are clipped"] * bool(loud)


class Segments:
    """Stands in for a training's segments: clip i has the frames [i, -i]."""

    def __init__(self, count):
        self.clips, self.asked = range(count), []

    def __getitem__(self, key):
        self.asked.append(key)
        return {"mel": torch.tensor([1.0, -1.0])[None].expand(6, -1) * key[1] * torch.arange(1, 7)[:, None] + 3}


@pytest.mark.parametrize(("clips", "taken"), [(5, 5), (64, 64), (65, 64)])
def test_the_interpolating_start_is_standardized_by_64_segments_at_most(config, tmp_path, clips, taken):
    """Each band by its own mean and deviation, of the first epoch."""
    run, segments = make_run(config[1], tmp_path), Segments(clips)
    train.start_as_interpolation(run, segments)
    assert segments.asked == [(0, i) for i in range(taken)]
    values = torch.tensor([sign * i for i in range(taken) for sign in (1.0, -1.0)])
    deviation = values.std() * torch.arange(1, 7)
    upsample, hop = run.model.upsample, run.model.hop_length
    assert torch.allclose(upsample.bias, -3 / deviation)
    assert torch.allclose(upsample.weight.diagonal()[hop], 1 / deviation)  # the tap at which a frame is alone


class Board:
    """Stands in for TensorBoard's writer."""

    def __init__(self):
        self.sounds, self.figures = {}, {}

    def add_audio(self, name, audio, iteration, rate):
        self.sounds[name] = audio, iteration, rate

    def add_figure(self, name, figure, iteration):
        self.figures[name] = figure, iteration


@pytest.mark.parametrize("frames", [5, 12])
def test_what_tensorboard_plays(config, tmp_path, monkeypatch, frames):
    """The beginning of a clip as the model makes it now, within full scale, and the same stretch of the recording."""
    monkeypatch.setattr(train, "SHOWN_FRAMES", 8)
    run = make_run(config[1], tmp_path)
    for wn in run.model.WN:
        torch.nn.init.normal_(wn.end.bias, std=0.5)
    mel = build_mel(run.config)
    audio = torch.from_numpy((0.3 * np.sin(np.arange(256 * (frames - 1) + 100))).astype(np.float32))
    item, board = {"mel": mel(audio[None])[0], "audio": audio}, Board()
    train.show_sample(board, 7, run, item, mel)
    shown = min(frames, 8)
    generator = torch.Generator().manual_seed(run.config.train_config.seed)
    noise = [torch.randn(shape, generator=generator) for shape in run.model.noise_shapes(1, shown)]
    expected = run.model.infer(item["mel"][None, :, :shown], 0.6, noise)
    assert expected.abs().max() > 1
    assert torch.equal(board.sounds["clip/synthesized"][0], expected.clamp(-1, 1))
    assert torch.equal(board.sounds["clip/recorded"][0], audio[None, : shown * 256])
    assert {sound[1:] for sound in board.sounds.values()} == {(7, RATE)}
    figure, iteration = board.figures["clip/mel spectrograms"]
    recorded, synthesized = (axis.images[0].get_array() for axis in figure.axes[:2])
    assert iteration == 7 and np.allclose(recorded, item["mel"][:, :shown])
    assert np.allclose(synthesized[:, : recorded.shape[1]], mel(expected)[0, :, : recorded.shape[1]], atol=1e-5)
