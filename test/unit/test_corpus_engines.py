"""The engines that speak a corpus: what is not installed is said, and what is there speaks."""

import importlib.metadata
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from common.program import UserError
from conftest import RATE, write_programs
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
    write_programs(tmp_path, {"espeak-ng": f"#!/bin/bash\necho $* >{tmp_path}/given\necho 7.5 is ill >&2\nexit 3\n"})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for voice, expected in (("", "en-us"), ("de", "de")):
        with pytest.raises(UserError, match=r"espeak-ng failed with code 3: 7\.5 is ill"):
            engines.find_espeak_ng(voice).load()("Text.", 0)
        assert (tmp_path / "given").read_text() == f"-v {expected} --stdin --stdout\n"


@pytest.mark.parametrize(("does", "said"), [("sleep 60", "timed out"), ("echo no sound", "flite failed: ")])
def test_a_program_that_does_not_speak_is_said(tmp_path, monkeypatch, does, said):
    write_programs(tmp_path, {"flite": f"#!/bin/bash\ncase $1 in -lv) echo Voices: slt;; -voice) exec {does};; esac\n"})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    speak = engines.find_flite("").load()
    monkeypatch.setattr(engines, "LIMIT", 0.2 if does == "sleep 60" else 60)
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


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a program on the path, which notes its arguments and its input in a file."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(name, lines):
        soundfile.write(tmp_path / "tone.wav", np.full(8000, 0.25), 16000)
        text = f'#!/bin/bash\nfolder={tmp_path}\n{lines}\nprintf "%s\\n" "$@" >$folder/given\ncat $folder/tone.wav\n'
        write_programs(tmp_path, {name: text})
        return tmp_path

    return make


VERSIONS = {
    "eSpeak NG text-to-speech: 1.51  Data at: /usr/lib": "1.51",
    "flite-2.2-current Jan 2018": "2.2",
    "version 10.2.1.": "10.2.1.",
    "7": "unknown",
    "": "unknown",
}


@pytest.mark.parametrize("said", VERSIONS)
def test_versions_are_read_of_what_programs_say(program, said):
    program("espeak-ng", f"[[ $1 == --version ]] && {{ echo '{said}'; exit 1; }}")
    assert engines.find_espeak_ng("").version == VERSIONS[said]


def test_espeak_gets_the_text_on_its_input(program):
    folder = program("espeak-ng", "[[ $1 == --version ]] && exit\ncat >$folder/input")
    engine = engines.ENGINES["espeak-ng"]("")
    audio, rate = engine.load()("Über uns.", 5)
    assert (folder / "input").read_text() == "Über uns."
    assert (folder / "given").read_text().split() == ["-v", "en-us", "--stdin", "--stdout"]
    assert (len(audio), audio.dtype, rate) == (8000, np.float32, 16000)
    assert audio.mean() == pytest.approx(0.25, abs=1e-4)
    assert (engine.name, engine.voice, engine.licence) == ("espeak-ng", "en-us", "GPL-3.0-or-later, the program")


def test_flite_speaks_only_with_voices_that_it_has(program):
    """It would speak with another one without saying so."""
    folder = program(
        "flite", "case $1 in --version) echo flite-2.2; exit 1;; -lv) echo 'Voices available: kal slt'; exit;; esac"
    )
    for voice, expected in (("", "slt"), ("kal", "kal")):
        engine = engines.ENGINES["flite"](voice)
        assert (engine.name, engine.voice, engine.version) == ("flite", expected, "2.2")
        engine.load()("Some text.", 5)
        given = (folder / "given").read_text().splitlines()
        assert given == ["-voice", expected, "-t", "Some text.", "-o", "/dev/stdout"]
    for voice in ("nobody", "Voices", "kal slt"):
        with pytest.raises(UserError, match=f"there is no --voice={voice}; choose from kal, slt"):
            engines.ENGINES["flite"](voice)


@pytest.fixture
def hibari(monkeypatch):
    """Stands in for the package."""
    made = []

    class Hibari:
        def __init__(self, voice, threads):
            made.append((voice, threads))
            if voice == "kore":
                raise RuntimeError("kore cannot be downloaded")

        def __call__(self, text, seed):
            return np.full(seed, float(len(text)))

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.3")
    for name in ("hibari", "hibari.voices"):
        monkeypatch.setitem(
            sys.modules, name, SimpleNamespace(SAMPLE_RATE=24000, Hibari=Hibari, VOICES=["heart", "kore"])
        )
    return made


def test_hibari_speaks_by_its_seed_on_one_thread(hibari):
    engine = engines.ENGINES["hibari"]("")
    assert (engine.name, engine.version, engine.voice) == ("hibari", "0.3", "heart")
    audio, rate = engine.load()("Words.", 7)
    assert (audio.tolist(), rate) == ([6.0] * 7, 24000)
    assert hibari == [("heart", 1)]


def test_a_voice_of_hibari_that_is_none_or_cannot_be_loaded(hibari):
    with pytest.raises(UserError, match="there is no --voice=nobody; choose from heart, kore"):
        engines.ENGINES["hibari"]("nobody")
    with pytest.raises(UserError, match=r"^kore cannot be downloaded$"):
        engines.ENGINES["hibari"]("kore").load()
