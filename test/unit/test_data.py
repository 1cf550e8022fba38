"""Which audio is learned: from which clips, which segments, in which order."""

from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from common.audio import MelSpectrogram
from common.config import TrainConfig
from common.corpus import find_clips, first_readable, hold_back_clips
from common.program import UserError
from common.training.batches import StepSampler, load, shuffled, training_batches
from conftest import RATE, make_corpus
from runs import CPU
from waveglow.config import DataConfig
from waveglow.data import (
    HeldBackSegments,
    TrainingSegments,
    is_near_silent,
    take_census,
)

CONFIG = DataConfig(segment_length=2048)


def segments(corpus, seed=1):
    return TrainingSegments(find_clips(corpus), CONFIG, MelSpectrogram(n_mel_channels=6), seed)


def test_a_segment_depends_on_seed_epoch_and_clip_alone(corpus):
    ours = segments(corpus)
    item = ours[(3, 5)]
    assert torch.equal(item["audio"], segments(corpus)[(3, 5)]["audio"])
    assert torch.equal(item["mel"], ours.mels.mel(item["audio"][None])[0])
    assert not torch.equal(item["audio"], ours[(4, 5)]["audio"])
    assert not torch.equal(item["audio"], segments(corpus, seed=2)[(3, 5)]["audio"])
    # The same clip at another place of a smaller corpus.
    ours.clips = ours.clips[1:]
    assert torch.equal(item["audio"], ours[(3, 4)]["audio"])


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_change_nothing(corpus, workers):
    data = segments(corpus)
    loader = DataLoader(data, batch_sampler=StepSampler(shuffled(13, 1), 3, 1, 0, 1), num_workers=workers)
    names = [batch["names"] for batch in islice(loader, 9)]
    sums = [batch["audio"].double().sum().item() for batch in islice(loader, 9)]
    expected = list(islice(StepSampler(shuffled(13, 1), 3, 1, 0, 1), 9))
    assert names == [[data.clips[i].name for _, i in batch] for batch in expected]
    assert sums == [pytest.approx(sum(data[key]["audio"].double().sum().item() for key in b)) for b in expected]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_no_random_number_of_the_trainings(corpus, workers):
    before = torch.get_rng_state()
    config = TrainConfig(batch_size=4, workers=workers)
    learned = training_batches(segments(corpus), shuffled(13, 1), config, CPU)(0, 0)
    assert len(next(learned)["names"]) == 4
    learned.close()
    assert len(list(load(HeldBackSegments(find_clips(corpus)[:1], CONFIG, MelSpectrogram(n_mel_channels=6))))) == 4
    assert torch.equal(torch.get_rng_state(), before)


def order(steps, batch_size=2, accumulation=1, world_size=1, epoch=0, clips=0):
    """The (epoch, clip) of each step, all processes together."""
    samplers = [StepSampler(shuffled(13, 7), batch_size, accumulation, rank, world_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.start_at(epoch, clips)
    per_rank = [list(islice(sampler, steps * accumulation)) for sampler in samplers]
    return [
        [key for batches in per_rank for batch in batches[i * accumulation : (i + 1) * accumulation] for key in batch]
        for i in range(steps)
    ]


def test_the_clips_of_a_step_do_not_depend_on_how_they_are_shared():
    expected = order(7, batch_size=4)
    assert order(7, batch_size=2, world_size=2) == expected
    assert order(7, batch_size=1, world_size=4) == expected
    assert order(7, batch_size=2, accumulation=2) == expected


def test_an_epoch_gives_every_clip_at_most_once_and_epochs_differ():
    steps = order(12, batch_size=2)
    first, second = steps[:6], steps[6:]
    assert {epoch for step in first for epoch, _ in step} == {0}
    assert {epoch for step in second for epoch, _ in step} == {1}
    clips = [clip for step in first for _, clip in step]
    assert len(set(clips)) == len(clips) == 12
    assert clips != [clip for step in second for _, clip in step]


def test_an_order_goes_on_where_it_was_left():
    whole = order(12)
    assert order(9, clips=6) == whole[3:]
    assert order(5, epoch=1, clips=2) == whole[7:]
    # with another number of processes too, where clips are left for a step
    assert order(2, batch_size=1, world_size=2, clips=8) == whole[4:6]


def test_short_clips_are_padded_without_digital_silence(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=2, seconds=0.05)
    item = segments(corpus)[(0, 0)]
    recorded = int(0.05 * RATE)
    original = soundfile.read(corpus / "wavs/clip00.wav", dtype="float32")[0]
    assert np.array_equal(item["audio"][:recorded].numpy(), original)
    padding = item["audio"][recorded:]
    assert len(item["audio"]) == 2048
    assert 0 < padding.std() < 1e-4
    assert (padding == 0).float().mean() < 0.01


def test_near_silent_stretches_are_avoided(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=2)
    path = corpus / "wavs/clip00.wav"
    audio = np.zeros(RATE * 2)
    audio[:RATE] = 0.1 * np.sin(np.arange(RATE) / 10)
    soundfile.write(path, audio, RATE)
    data = segments(corpus)
    assert not any(is_near_silent(data[(epoch, 0)]["audio"].numpy()) for epoch in range(30))


def test_a_silent_clip_gets_faint_noise(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=2)
    soundfile.write(corpus / "wavs/clip00.wav", np.zeros(RATE), RATE)
    audio = segments(corpus)[(0, 0)]["audio"]
    assert 0 < audio.std() < 1e-4
    assert audio.abs().max() < 1e-3


def test_the_census_counts_clips_segments_and_seconds(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=3)
    soundfile.write(corpus / "wavs/clip00.wav", np.zeros(2048 * 3 + 5), RATE)
    soundfile.write(corpus / "wavs/clip01.wav", np.full(100, 0.1), RATE)
    census = take_census(find_clips(corpus), CONFIG)
    assert (census.clips, census.short, census.silent) == (3, 1, 3)
    assert census.segments == 3 + 1 + int(0.4 * RATE) // 2048
    assert census.seconds == pytest.approx((2048 * 3 + 5 + 100 + int(0.4 * RATE)) / RATE)


def test_full_scale_is_not_beyond_it(tmp_path):
    for number, peak in enumerate((-1.0, 1.0, 1.001)):
        soundfile.write(tmp_path / f"{number}.wav", np.array([0.5, peak] * 2000), RATE, subtype="FLOAT")
    assert take_census(sorted(tmp_path.iterdir()), CONFIG).clipped == 1


def test_the_census_names_what_cannot_be_used(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=6)
    for i in range(5):
        soundfile.write(corpus / f"wavs/clip0{i}.wav", np.zeros(100), 8000)
    with pytest.raises(UserError, match=r"5 of 6 clips cannot be used: .*clip00.wav has 8000 Hz.*; \.\.\.$"):
        take_census(find_clips(corpus), CONFIG)


def test_held_back_segments_are_the_first_of_each_clip(tmp_path):
    clips = find_clips(make_corpus(tmp_path / "corpus", clips=2, seconds=0.6))  # 6 whole segments
    data = HeldBackSegments(clips, CONFIG, MelSpectrogram(n_mel_channels=6))
    whole = soundfile.read(clips[0], dtype="float32")[0]
    assert len(data) == 2 * 4
    assert np.array_equal(data[1]["audio"].numpy(), whole[2048:4096])


def test_a_clip_that_cannot_be_read_gives_way_to_the_next(caplog):
    """Or ends the run; and so does a corpus of which nothing is left."""

    def load(index):
        if index in broken:
            raise UserError(f"clip {index} is broken")
        return {"names": index}

    broken = {1, 2, 4}
    assert [first_readable(load, index, 5, "skip")["names"] for index in range(5)] == [0, 3, 3, 3, 0]
    assert [record.message for record in caplog.records] == [f"skipped: clip {i} is broken" for i in (1, 2, 2, 4)]
    assert first_readable(load, 3, 5, "stop") == {"names": 3}
    with pytest.raises(UserError, match="clip 2 is broken"):
        first_readable(load, 2, 5, "stop")
    broken = set(range(5))
    with pytest.raises(UserError, match="none of the clips can be read any more"):
        first_readable(load, 2, 5, "skip")


def test_a_tenth_of_the_clips_but_at_most_ten_is_held_back():
    for clips, held_back in [(2, 1), (13, 1), (32, 3), (99, 9), (100, 10), (13100, 10)]:
        training, held = hold_back_clips(list(range(clips)))
        assert held == list(range(held_back))
        assert training == list(range(held_back, clips))
    with pytest.raises(UserError, match="at least 2 clips are needed"):
        hold_back_clips([1])
