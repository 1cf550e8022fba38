"""The learning rate over a run."""

import pytest

from common.training import loop
from runs import start


def rates(values, corpus, output, monkeypatch, **changes):
    """The learning rate of each step."""
    found = []
    original = loop.set_learning_rate

    def spy(run, left):
        original(run, left)
        (group,) = run.optimizer.param_groups
        found.append(group["lr"])

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_learning_rate", spy)
        start(values, corpus, output, learning_rate=1.0, **changes)
    return found


def test_it_stays_as_configured(config, corpus, tmp_path, monkeypatch):
    assert rates(config[1], corpus, tmp_path, monkeypatch, max_steps=3) == [1.0] * 3


def test_it_rises_and_falls(config, corpus, tmp_path, monkeypatch):
    found = rates(config[1], corpus, tmp_path, monkeypatch, max_steps=10, warmup_steps=4, decay_steps=4)
    assert found[:7] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    cosine = [(1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]
    assert found[7:] == pytest.approx(cosine)


def test_a_decay_longer_than_the_run_is_all_of_it(config, corpus, tmp_path, monkeypatch):
    found = rates(config[1], corpus, tmp_path, monkeypatch, max_steps=4, decay_steps=10**9)
    assert found[0] == 1.0
    assert found[2] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)


def test_the_end_is_that_of_the_epochs_where_it_comes_first(config, corpus, tmp_path, monkeypatch):
    found = rates(config[1], corpus, tmp_path, monkeypatch, epochs=2, max_steps=10**6, decay_steps=10**9)
    assert len(found) > 2
    same = rates(config[1], corpus, tmp_path / "b", monkeypatch, max_steps=len(found), decay_steps=10**9)
    assert found == pytest.approx(same)


def test_a_resumed_run_goes_on_where_the_rate_was(config, corpus, tmp_path, monkeypatch):
    """Its end may be set anew: the rate falls before the end that is."""
    options = dict(warmup_steps=2, decay_steps=3)
    first = rates(config[1], corpus, tmp_path, monkeypatch, max_steps=4, **options)
    more = rates(config[1], corpus, tmp_path, monkeypatch, max_steps=8, **options)
    whole = rates(config[1], corpus, tmp_path / "whole", monkeypatch, max_steps=8, **options)
    assert first[-1] < 1
    assert more == whole[4:]
