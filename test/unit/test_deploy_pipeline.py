"""The pipeline around an engine's graphs, by stand-ins for them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import waveglow.config
from tacotron2.config import Tacotron2Config
from tools.deploy.infer_python import pipeline
from tools.deploy.infer_python.pipeline import Pipeline


def test_a_stage_lasts_until_the_device_is_done_and_adds_up(monkeypatch):
    now = [0.0]

    def take(seconds):
        now[0] += seconds

    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    own = Pipeline.__new__(Pipeline)
    own.engine, own.seconds = SimpleNamespace(wait=lambda: take(2)), {}
    for seconds in (1, 4):
        with own.stage("decoder"):
            take(seconds)
    assert own.seconds == {"decoder": 1 + 2 + 4 + 2}


@pytest.mark.parametrize("frames_per_step, most, limit", [(1, 100, 9), (2, 100, 4), (2, 3, 3)])
def test_it_decodes_no_longer_than_the_engines_and_the_voice_allow(frames_per_step, most, limit):
    """The engines by frames, of which a step may make several, the voice by steps."""
    sizes = Tacotron2Config(n_frames_per_step=frames_per_step, max_decoder_steps=most)
    contents = SimpleNamespace(
        files={}, ranges={"mel": [1, 5, 9]},
        tacotron2=SimpleNamespace(tacotron2_config=sizes), waveglow=waveglow.config.Config(),
    )  # fmt: skip
    assert Pipeline(Path(), contents, engine=None).limit == limit
