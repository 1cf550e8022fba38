"""What test_on_cuda.py asks of a card besides the CPU's numbers, asked of the CPU: in a group of one process, after an
overflow, with and without graphs the same is computed. And how waiting for a card is counted."""

import warnings
from dataclasses import replace

import card_checks
import pytest
import torch
from card_checks import each_model, waits_of

from runs import CPU, needs_float16


@each_model
def test_a_process_alone_in_its_group_learns_the_same(name, corpus, tmp_path):
    card_checks.check_a_process_alone_in_its_group_learns_the_same(name, CPU, corpus, tmp_path)


@needs_float16
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_loss_scale_comes_down(level, corpus, tmp_path):
    card_checks.check_a_loss_scale_comes_down(level, replace(CPU, half=torch.float16), corpus, tmp_path)


def test_recorded_decoding_is_the_plain_one(monkeypatch):
    card_checks.check_recorded_decoding_is_the_plain_one(CPU, monkeypatch)


@pytest.fixture
def modes(monkeypatch):
    """The debug modes that PyTorch was asked for, where it may know no card."""
    asked = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", asked.append)
    return asked


def test_waits_are_counted(modes):
    def work():
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally ...)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert waits_of(work) == 3 and modes == ["warn", "default"]
    with pytest.raises(ZeroDivisionError):
        waits_of(lambda: 1 // 0)
    assert modes[-1] == "default"


@each_model
def test_nobody_waits_on_the_cpu(name, corpus, tmp_path, modes, monkeypatch):
    assert card_checks.waits_of_steps(name, "O0", CPU, corpus, tmp_path, monkeypatch) == [0] * 6
    assert card_checks.waits_of_decoding(20, CPU) == 0
