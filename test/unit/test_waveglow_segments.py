"""Which parts of a clip WaveGlow learns from and is measured on."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from common.audio import ClipError, Fault, MelSpectrogram
from common.bad_clips import BadClips
from conftest import RATE
from waveglow import data
from waveglow.config import DataConfig
from waveglow.data import HeldBackSegments, TrainingSegments, pad_and_dither, take_census

LENGTH = 2048
CONFIG = DataConfig(segment_length=LENGTH)
MEL = MelSpectrogram(n_mel_channels=6)


def write_clip(path, samples, loudness=0.5):
    """Samples that all differ, which tell where a segment comes from; none of them is near 0."""
    audio = (loudness * np.linspace(0.1, 1, samples)).astype(np.float32)
    soundfile.write(path, audio, RATE, subtype="FLOAT")
    return audio


def begin(audio, segment):
    """The place in a clip from which on it is the segment."""
    place = int(np.abs(audio - segment[0].item()).argmin())
    assert np.array_equal(segment.numpy(), audio[place : place + len(segment)])
    return place


def test_segments_come_from_all_of_a_clip(tmp_path):
    """Each begin is drawn as often as any other, the first and the last too."""
    places = 12
    audio = write_clip(tmp_path / "a.wav", LENGTH + places - 1)
    data = TrainingSegments([tmp_path / "a.wav"], CONFIG, MEL, seed=1)
    begins = [begin(audio, data[(epoch, 0)]["audio"]) for epoch in range(240)]
    counts = np.bincount(begins, minlength=places)
    assert len(counts) == places
    assert counts.min() > 5 and counts.max() < 40  # 20 each


def test_a_header_is_read_once_a_draw(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.wav", 2 * LENGTH)
    data = TrainingSegments([tmp_path / "a.wav"], CONFIG, MEL, seed=1)
    looks, info = [], soundfile.info
    monkeypatch.setattr(soundfile, "info", lambda file: looks.append(file) or info(file))
    data[(0, 0)]
    assert len(looks) == 1


def test_a_clip_of_one_segment_is_that_segment(tmp_path):
    audio = write_clip(tmp_path / "a.wav", LENGTH)
    training = TrainingSegments([tmp_path / "a.wav"], CONFIG, MEL, seed=1)
    held_back = HeldBackSegments([tmp_path / "a.wav"], CONFIG, MEL)
    assert len(held_back) == 1
    for item in (training[(0, 0)], training[(1, 0)], held_back[0]):
        assert np.array_equal(item["audio"].numpy(), audio)
    census = take_census([tmp_path / "a.wav"], CONFIG)
    assert (census.short, census.segments, census.silent) == (0, 1, 0)


def test_whole_segments_are_whole_ones(tmp_path):
    """A rest that makes no segment is left out, unless it is all there is; the census counts in the same way."""
    for samples, segments in ((1, 1), (LENGTH - 1, 1), (2 * LENGTH - 1, 1), (2 * LENGTH, 2), (3 * LENGTH + 1, 3)):
        audio = write_clip(tmp_path / "a.wav", samples)
        data = HeldBackSegments([tmp_path / "a.wav"], CONFIG, MEL)
        assert len(data) == take_census([tmp_path / "a.wav"], CONFIG).segments == segments
        kept = np.concatenate([item["audio"] for item in (data[i] for i in range(segments))])
        shared = min(samples, segments * LENGTH)
        assert np.array_equal(kept[:shared], audio[:shared])


def test_of_a_long_held_back_clip_the_first_four_segments(tmp_path):
    """Else the longest clip would decide the validation loss."""
    long, short = (write_clip(tmp_path / f"{name}.wav", n * LENGTH) for name, n in (("a", 9), ("b", 2)))
    data = HeldBackSegments([tmp_path / "a.wav", tmp_path / "b.wav"], CONFIG, MEL)
    assert [item["names"] for item in (data[i] for i in range(len(data)))] == 4 * ["a.wav"] + 2 * ["b.wav"]
    audio = np.concatenate([data[i]["audio"] for i in range(len(data))])
    assert np.array_equal(audio, [*long[: 4 * LENGTH], *short])


@pytest.mark.parametrize("samples", [100, LENGTH])
def test_noise_is_the_same_each_time(tmp_path, samples):
    """In short clips and in silent ones; a held-back clip, from which the curve is drawn, in every epoch too."""
    soundfile.write(tmp_path / "a.wav", np.zeros(samples), RATE)
    for make, keys in (
        (lambda: HeldBackSegments(2 * [tmp_path / "a.wav"], CONFIG, MEL), (0, 1)),
        (lambda: TrainingSegments([tmp_path / "a.wav"], CONFIG, MEL, seed=1), ((0, 0), (1, 0))),
    ):
        one, other = make(), make()
        assert all(torch.equal(one[key]["audio"], other[key]["audio"]) for key in keys)
        assert not torch.equal(one[keys[0]]["audio"], one[keys[1]]["audio"])
        assert all(one[key]["audio"].std().item() == pytest.approx(1 / 32768, rel=0.1) for key in keys)


def test_the_folder_of_a_clip_does_not_matter(tmp_path):
    """A corpus that was moved gives the same segments."""
    items = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.wav", 9000)
        items.append(TrainingSegments([tmp_path / name / "a.wav"], CONFIG, MEL, seed=1)[(0, 0)])
    assert torch.equal(items[0]["audio"], items[1]["audio"])
    (tmp_path / "there/a.wav").rename(tmp_path / "there/a.WAV")  # nor how its ending is written
    items.append(TrainingSegments([tmp_path / "there/a.WAV"], CONFIG, MEL, seed=1)[(0, 0)])
    assert torch.equal(items[2]["audio"], items[0]["audio"])


@pytest.mark.parametrize(("rms", "is_dithered"), [(2e-4, False), (0.5e-4, True), (0.0, True)])
def test_what_is_near_silent_gets_noise(rms, is_dithered):
    """80 dB below full scale is the limit."""
    audio = np.full(LENGTH, rms, np.float32)
    added = pad_and_dither(audio, LENGTH, np.random.default_rng(0)) - audio
    assert added.std() == (pytest.approx(1 / 32768, rel=0.1) if is_dithered else 0)


@pytest.mark.parametrize(("silent", "reads"), [(0, 1), (9, 10), (10, 10), (30, 10)])
def test_ten_places_are_tried_before_a_silent_one_is_taken(tmp_path, monkeypatch, silent, reads):
    write_clip(tmp_path / "a.wav", 9000)
    looked = []

    def read(path, rate, start, length, frames):
        looked.append(start)
        return np.full(length, 0.0 if len(looked) <= silent else 0.5, np.float32)

    monkeypatch.setattr(data, "read_wav", read)
    item = TrainingSegments([tmp_path / "a.wav"], CONFIG, MEL, seed=1)[(0, 0)]
    assert len(looked) == reads and (len(set(looked)) > 1) == (reads > 1)
    if silent < 10:
        assert (item["audio"] == 0.5).all()
    else:
        assert 0 < item["audio"].std() < 1e-3  # noise


@pytest.mark.parametrize("kind", ["training", "held back"])
def test_a_clip_that_can_no_longer_be_read_ends_the_run_or_gives_way(tmp_path, kind, caplog):
    """As the configuration says; by default it ends it."""
    clips = [tmp_path / f"{name}.wav" for name in "abc"]
    for clip in clips:
        write_clip(clip, LENGTH)

    def segments(*how):
        if kind == "training":
            return TrainingSegments(clips, CONFIG, MEL, 1, *how)
        return HeldBackSegments(clips, CONFIG, MEL, *how)

    sets = [segments(*how) for how in ([], ["stop"], ["skip"])]
    clips[1].write_bytes(b"")
    key = (0, 1) if kind == "training" else 1
    for stopping in sets[:2]:
        with pytest.raises(ClipError, match=r"b\.wav"):
            stopping[key]
    assert sets[2][key]["names"] == "c.wav" and "skipped: " in caplog.text


def test_a_clip_whose_given_mel_is_wrong_counts_for_nothing(tmp_path):
    for name in "ab":
        write_clip(tmp_path / f"{name}.wav", 3 * LENGTH)
    bad = BadClips("skip")
    mels = SimpleNamespace(fault=lambda clip, audio: ClipError("wrong", Fault.MEL) if clip.stem == "a" else None)
    census = take_census([tmp_path / "a.wav", tmp_path / "b.wav"], CONFIG, bad, mels)
    assert (census.clips, census.segments, census.short) == (1, 3, 0)
    assert census.seconds == pytest.approx(3 * LENGTH / RATE)
    assert bad.paths == {tmp_path / "a.wav"} and bad.faults == {"wrong": Fault.MEL}


def test_the_census_looks_at_each_segment_by_itself(tmp_path):
    """Silence between two loud ones, and a silent rest that makes no segment."""
    loud, silence = np.full(LENGTH, 0.5), np.zeros(LENGTH)
    parts = [silence, loud, silence, silence, loud, silence[:-1]]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), RATE)
    census = take_census([tmp_path / "a.wav"], CONFIG)
    assert (census.segments, census.silent) == (5, 3)
