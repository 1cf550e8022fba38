"""Checkpoints of one small tensor, what is there of them, and a disk that does not take some."""

import torch

from common.checkpoints import native
from common.program import UserError


def names(folder):
    """What is there but the input of the runs."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("corpus", "config.json"))


def state(iteration=0, size=1000):
    return {"model": {"a": torch.arange(float(size))}, "config": {}, "iteration": iteration, "progress": {}}


def failing(iterations):
    """A checkpoint.save that does not manage these."""
    original = native.save

    def save(path, state):
        if state["iteration"] in iterations:
            raise UserError(f"cannot save {path}: disk full")
        original(path, state)

    return save
