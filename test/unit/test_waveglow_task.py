"""What WaveGlow gives the training loop: batches, the size of an epoch, its start, what TensorBoard plays."""

import logging

import numpy as np
import pytest
import soundfile
import torch

from common.bad_clips import BadClips
from common.program import UserError
from conftest import RATE
from runs import make_run, names_in
from waveglow import train
from waveglow.config import build_mel
from waveglow.data import Census
from waveglow.segment_mels import SegmentMels


def test_an_epoch_is_of_the_training_clips_and_a_clip_stands_for_a_segment(config, corpus, tmp_path):
    task = train.make_task(make_run(config[1], tmp_path / "out"), str(corpus))
    assert task.clips_per_epoch == 12
    assert task.samples_per_clip == config[1]["data_config"]["segment_length"] != RATE
    assert "clip00.wav" not in [name for batch in names_in(task) for name in batch]


def test_order_and_segments_are_drawn_from_the_seed_of_the_training(config, corpus, tmp_path):
    tasks = [train.make_task(make_run(config[1], tmp_path / "out", seed=seed), str(corpus)) for seed in (1, 1, 2)]
    orders = [names_in(task) for task in tasks]
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


@pytest.mark.parametrize("on_bad_clip", ["stop", "skip"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_settings_of_a_training_reach_what_they_are_for(
    config, corpus, tmp_path, monkeypatch, on_bad_clip, recompute
):
    made = {}
    for name in ("TrainingSegments", "HeldBackSegments"):
        kind = getattr(train, name)
        monkeypatch.setattr(train, name, lambda *given, kind=kind: made.setdefault(kind.__name__, kind(*given)))
    run = make_run(config[1], tmp_path / "out", on_bad_clip=on_bad_clip, recompute=recompute, seed=77)
    task = train.make_task(run, str(corpus))
    training, held_back = made["TrainingSegments"], made["HeldBackSegments"]
    assert [clip.name for clip in training.clips] == [f"clip{i:02}.wav" for i in range(1, 13)]
    assert {clip.name for clip, _ in held_back.places} == {"clip00.wav"}
    assert training.on_bad_clip == held_back.on_bad_clip == on_bad_clip and training.seed == 77
    assert run.model.recompute == recompute and task.clips_per_epoch == 12


@pytest.mark.parametrize("given", [False, True])
def test_all_processes_must_have_the_same_clips_and_the_same_given_mels(config, corpus, tmp_path, monkeypatch, given):
    """The held-back clips, too; before any is read."""
    agreed, values = [], config[1]
    monkeypatch.setattr(train, "agree_on_corpus", lambda *what, **more: agreed.append((what, more)))
    clips = [corpus / f"wavs/clip{i:02}.wav" for i in range(13)]
    if given:
        (tmp_path / "mels").mkdir()
        np.save(tmp_path / "mels/clip03.npy", np.zeros((6, 35)))
        values = values | {"data_config": values["data_config"] | {"mels_path": str(tmp_path / "mels")}}
    run = make_run(values, tmp_path / "out")
    if given:  # of the other clips there is none
        with pytest.raises(UserError, match="13 of 13 clips cannot be used"):
            train.make_task(run, str(corpus))
    else:
        train.make_task(run, str(corpus))
    mels = {"the mel spectrogram of clip03.wav": tmp_path / "mels/clip03.npy"} if given else None
    assert agreed == [(([*clips[1:], clips[0]],), {"others": mels})]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_process_looks_at_a_third_of_the_clips_and_hears_of_others(config, tmp_path, monkeypatch, caplog, rank):
    """What is said is about all clips, with their given mels; what another process has found counts, too."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "3")
    clips, looked, order = [tmp_path / f"{i}.wav" for i in range(8)], [], []
    censuses = [Census(3, 10.0, 1, 9, 2, 0), Census(3, 20.0, 0, 9, 0, 1), Census(2, 30.0, 2, 6, 1, 1)]

    def census(*given):
        looked.append(given)
        return censuses[rank]

    bad = BadClips("skip")
    monkeypatch.setattr(train, "take_census", census)
    monkeypatch.setattr(bad, "gather", lambda clips: order.append(("gather", clips)))
    monkeypatch.setattr(bad, "settle", lambda total: order.append(("settle", total)))
    monkeypatch.setattr(train.distributed, "gather_objects", lambda own: own == censuses[rank] and censuses)
    run = make_run(config[1], tmp_path / "out")
    caplog.clear()
    train.report_census(clips, run.config, bad, "mels")
    assert looked == [(clips[rank::3], run.config.data_config, bad, "mels")]
    assert order == [("gather", clips), ("settle", 8)]
    assert caplog.messages[0].startswith("data: 8 clips, 60 s; 3 shorter than a segment")
    assert "3 of 24 segments near-silent" in caplog.text and "2 clip(s) have samples beyond" in caplog.text


def test_tensorboard_plays_the_first_held_back_clip(config, corpus, tmp_path):
    """Which is not learned."""
    run, board = make_run(config[1], tmp_path / "out"), Board()
    train.make_task(run, str(corpus)).show(board, 5)
    played, iteration, _ = board.sounds["clip/recorded"]
    recording = soundfile.read(corpus / "wavs/clip00.wav", dtype="float32")[0]
    assert iteration == 5 and np.array_equal(played[0], recording[: played.shape[1]]) and played.shape[1] >= 2048
