"""Pipes, sockets, devices and folders in the place of a file to read are refused at once, by name."""

import os
import socket
import subprocess
import sys

import pytest

from common import voices
from common.audio import ClipError, read_wav
from common.checkpoints import native
from common.checkpoints.reading import read_contents
from common.config_reading import load_config
from common.corpus import find_clips, read_lines
from common.program import UserError
from conftest import RATE, ROOT, toy_config
from runs import make_run
from tacotron2.teacher_forced import is_whole
from tacotron2.text.dictionary import load_dictionary
from tools.tbe.edits import backup_of, restoration
from tools.tbe.lists import FIVE_2_FOUR
from waveglow.config import Config

NAMES = {"pipe": "is a pipe", "socket": "is a socket", "zero": "is a device", "folder": ""}


@pytest.fixture
def make(tmp_path):
    """A function that puts one of ``NAMES`` in the place of a file."""
    held = []

    def put(kind, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].bind(os.path.relpath(path))
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        return path

    yield put
    for each in held:
        each.close()


def build_of_own_graph(path):
    from deploy_toys import make, models_dir  # exports, once

    assert models_dir()
    make(path.parent / "engines", "onnxruntime", graphs={"postnet": path})


def contents_of_engines(path):
    from tools.deploy.artifacts import read_contents as read

    read(path.parent, "onnxruntime", "build it")


def settings_of_deploy(path):
    from tools.deploy.gen_model.settings import load_settings

    load_settings(path)


def mel_spectrogram(path):
    from types import SimpleNamespace

    from waveglow.evaluation import read_input

    read_input(path, SimpleNamespace(config=Config()), form="ln")


def shapes_of_tbe(path):
    from tools.patch_tbe import read_shapes

    read_shapes(path)


def api_key(path):
    from tools.serve.limits import read_key

    read_key(path)


def facts_of_mels(path):
    from tacotron2.teacher_forced import settle_facts

    settle_facts(path, {"seed": 1})


def metadata(path):
    (path.parent / "wavs").mkdir()
    (path.parent / "wavs/a.wav").touch()
    find_clips(str(path.parent))


READERS = {
    "a.wav": lambda path: read_wav(path, RATE),
    "a.pt": mel_spectrogram,
    "a.npy": mel_spectrogram,
    "texts.txt": read_lines,
    "list.txt": lambda path: find_clips("", str(path)),
    "waveglow_1": read_contents,
    "waveglow_2": native.load,
    "config.json": lambda path: load_config(path, Config),
    "words.dict": load_dictionary,
    "voice.safetensors": voices.sha256,
    "contents.json": contents_of_engines,
    "deploy.json": settings_of_deploy,
    "shapes.json": shapes_of_tbe,
    "postnet.onnx": build_of_own_graph,
    "key.txt": api_key,
    "teacher_forced.json": facts_of_mels,
    "metadata.csv": metadata,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", NAMES)
def test_refused_at_once(tmp_path, monkeypatch, make, name, kind):
    monkeypatch.chdir(tmp_path)  # for the short name that a socket may have
    path = make(kind, tmp_path / "in" / name)
    with pytest.raises(UserError) as caught:
        READERS[name](path)
    said = str(caught.value)
    assert str(path) in said and NAMES[kind] in said and "\n" not in said


def test_a_mel_that_may_have_been_predicted_earlier(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"a\.npy is a pipe: name a file"):
        is_whole(tmp_path / "a.npy", (6, 3), since=0.0)


def test_an_original_of_cann(tmp_path):
    (tmp_path / FIVE_2_FOUR).write_bytes(b"made")
    os.mkfifo(backup_of(tmp_path / FIVE_2_FOUR, b"made", b"original"))
    with pytest.raises(UserError, match=r"before_patch_tbe\.\w+\.\w+ is a pipe: name a file"):
        restoration(tmp_path, FIVE_2_FOUR)


@pytest.mark.parametrize("kind", NAMES)
def test_a_clip_of_a_corpus_is_counted_among_the_bad_ones(corpus, monkeypatch, make, kind):
    monkeypatch.chdir(corpus)
    with pytest.raises(ClipError, match="clip99"):
        read_wav(make(kind, corpus / "wavs/clip99.wav"), RATE)


def test_a_text_to_speak(tmp_path):
    os.mkfifo(tmp_path / "story")
    command = [sys.executable, ROOT / "tools/synthesize.py", "story", "-o", "out.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "error: story is a pipe: name a file\n")


def test_links_that_lead_to_each_other(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    loop = str(tmp_path / "a")
    for options, resume in (({"checkpoint_path": loop}, "no"), ({}, loop)):
        with pytest.raises(UserError, match=f"cannot read {loop}: Too many levels of symbolic links"):
            make_run(toy_config(), tmp_path / "out", **options).start(resume)
