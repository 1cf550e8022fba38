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


def test_programs_get_the_voice_and_what_they_say_when_they_fail_is_said(tmp_path, monkeypatch):
    (tmp_path / "espeak-ng").write_text(f"#!/bin/bash\necho $* >{tmp_path}/given\necho 7.5 is ill >&2\nexit 3\n")
    (tmp_path / "espeak-ng").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for voice, expected in (("", "en-us"), ("de", "de")):
        with pytest.raises(UserError, match=r"espeak-ng failed with code 3: 7\.5 is ill"):
            engines.find_espeak_ng(voice).load()("Text.", 0)
        assert (tmp_path / "given").read_text() == f"-v {expected} --stdin --stdout\n"


@pytest.mark.parametrize(("does", "said"), [("sleep 60", "timed out"), ("echo no sound", "flite failed: ")])
def test_a_program_that_does_not_speak_is_said(tmp_path, monkeypatch, does, said):
    (tmp_path / "flite").write_text(f"#!/bin/bash\ncase $1 in -lv) echo Voices: slt;; -voice) exec {does};; esac\n")
    (tmp_path / "flite").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    speak = engines.find_flite("").load()
    monkeypatch.setattr(engines, "LIMIT", 0.2)
    with pytest.raises(UserError, match=said):
        speak("Text.", 0)


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
