"""Speech as a service by toy models, for the tests of tools/serve: a plugin of theirs, for its fixtures."""

import socket
import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from toy_speech import make_models

from common.audio import to_16_bit
from common.voices import Settings
from conftest import RATE
from runs import CPU
from tacotron2 import synthesizer as module
from tacotron2.synthesizer import Synthesizer
from waveglow.vocoder import Vocoder

TEXT = "Hello there. Go now!\nThe end."
SETTINGS = Settings(sigma=0.3, denoiser_strength=0.2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two checkpoints; the sound of a new WaveGlow would not depend on the spectrogram."""
    paths = [option.partition("=")[2] for option in make_models(tmp_path_factory.mktemp("models"))]
    state = torch.load(paths[1], weights_only=True)
    for name, weight in state["model"].items():
        if ".end." in name:
            weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    torch.save(state, paths[1])
    return paths


@pytest.fixture
def speaker(models, monkeypatch):
    monkeypatch.setattr(module, "find_flaw", lambda utterance: "")
    speaker = pytest.importorskip("tools.serve.speaker").Speaker(Synthesizer(models[0], CPU), Vocoder(models[1], CPU))
    yield speaker
    speaker.close()


@pytest.fixture
def serve(speaker):
    """A function that starts the service; returns its address."""
    make_server = pytest.importorskip("tools.serve.server", reason="requirement-serve.txt is not installed").make_server
    application = pytest.importorskip("tools.serve.application")
    limits_module = pytest.importorskip("tools.serve.limits")
    module = pytest.importorskip("tools.serve.voices")
    entry = module.Entry("toy", SETTINGS, RATE)
    voices = module.Voices([entry], lambda entry: speaker, 1)
    servers = []

    def start(key=b"", **limits):
        app = application.make_application(voices, limits_module.Limits(**limits), key)
        place = socket.create_server(("127.0.0.1", 0))
        server = make_server(app, 5)
        thread = threading.Thread(target=server.run, args=([place],), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{place.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def hold(speaker, monkeypatch, after):
    """From now on so many sentences are decoded, and the others only when the event that is returned is set."""
    go_on, free = threading.Event(), iter([True] * after)
    together = speaker.synthesizer.speak_together

    def in_time(*args):
        assert next(free, False) or go_on.wait(120)
        return together(*args)

    monkeypatch.setattr(speaker.synthesizer, "speak_together", in_time)
    return go_on


def whole(speaker, text=TEXT, seed=1234):
    """What tools/synthesize.py would write: every piece in one go."""
    pieces = speaker.synthesizer.take_apart(text)
    parts = []
    for piece, spoken in zip(pieces, speaker.synthesizer.speak([piece.text for piece in pieces], seed)):
        audio = speaker.vocoder.synthesize(spoken.utterance.mel, SETTINGS.sigma, SETTINGS.denoiser_strength, seed)
        parts += [to_16_bit(audio), np.zeros(round(piece.pause * RATE), np.int16)]
    return np.concatenate(parts[:-1])


def assert_same(ours, theirs):
    """Sample for sample, but for the rounding of float32, which may turn the last bit of 16."""
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def is_refused(port):
    """Whether nobody listens at a port of this machine any more."""
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=60):
        return False
    return True
