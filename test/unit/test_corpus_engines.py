"""The engines that speak a corpus: what is not installed is said, and what is there speaks."""

import importlib.metadata
import shutil

import numpy as np
import pytest

from common.program import UserError
from conftest import RATE
from tools.corpus import clips, engines


def test_engines_that_are_not_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    for find, command in [
        (engines.find_hibari, "pip install -r requirement-corpus.txt"),
        (engines.find_espeak_ng, "apt-get install espeak-ng"),
        (engines.find_flite, "apt-get install flite"),
    ]:
        with pytest.raises(UserError, match=f"^--engine=[a-z-]+ is not installed: {command}$"):
            find("")


@pytest.mark.parametrize("name", ["hibari", "espeak-ng", "flite"])
def test_the_engines(name):
    """Two sentences are longer than one; the same again, and with another voice's name refused."""
    try:
        engine = engines.ENGINES[name]("")
    except UserError as error:
        pytest.skip(str(error))
    speak = engine.load()
    texts = ["-- The river was low that summer.", "-- The river was low that summer. Nobody asked why."]
    short, long = (clips.make_clip(speak, text, 1, 0, -60) for text in texts)
    assert 1.5 < len(short) / RATE < 3 < len(long) / RATE < 6
    assert np.std(short) > 0.02
    assert np.array_equal(short, clips.make_clip(engine.load(), texts[0], 1, 0, -60))
    with pytest.raises(UserError, match=r"there is no --voice=nobody; choose from|voice does not exist"):
        engines.ENGINES[name]("nobody").load()("Hello.", 0)
    assert engine.version[0].isdigit()
