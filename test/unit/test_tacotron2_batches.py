"""Batches of Tacotron2's training: padded, of clips of like lengths, each clip once an epoch."""

from itertools import islice

import numpy as np
import pytest
import torch

from common.training.batches import StepSampler
from tacotron2.data import BATCHES_IN_A_BUCKET, bucketed, collate


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


@pytest.mark.parametrize(("clips", "batch_size"), [(1000, 8), (13, 4), (3, 4), (128, 8)])
def test_the_order_takes_each_clip_once_and_differs_by_epoch(clips, batch_size):
    lengths = np.random.default_rng(0).integers(1, 1000, clips).tolist()
    order = bucketed(lengths, batch_size, seed=5)
    for epoch in range(3):
        assert sorted(order(epoch)) == list(range(clips))
        assert (order(epoch) == bucketed(lengths, batch_size, seed=5)(epoch)).all()
    assert not (order(0) == order(1)).all()
    assert not (order(0) == bucketed(lengths, batch_size, seed=6)(0)).all()
    # Nor is one seed the next epoch of another; of a few clips there are few orders.
    assert clips < 100 or not (order(1) == bucketed(lengths, batch_size, seed=6)(0)).all()
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


def test_batches_of_one_bucket_come_in_another_order_each_time():
    """Else training would go from the shortest clips to the longest again and again."""
    lengths = np.random.default_rng(0).permutation(4 * BATCHES_IN_A_BUCKET) + 1
    order = bucketed(lengths.tolist(), 4, seed=5)
    means = [lengths[order(epoch)].reshape(-1, 4).mean(axis=1) for epoch in range(3)]
    assert all(sorted(each) == sorted(means[0]) != each.tolist() for each in means)  # the same, and in no order
    assert len({tuple(each) for each in means}) == 3


def test_processes_share_a_step_by_whole_batches():
    lengths = np.random.default_rng(0).permutation(64).tolist()
    order = bucketed(lengths, 4, seed=5)
    steps = zip(*(islice(StepSampler(order, 4, 1, rank, 2), 8) for rank in range(2)), strict=True)
    assert [clip for step in steps for batch in step for _, clip in batch] == order(0).tolist()
