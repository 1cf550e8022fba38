"""The pipeline around an engine's graphs, by stand-ins for them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tacotron2.config
import waveglow.config
from tacotron2.config import Tacotron2Config
from tools.deploy.infer_python import pipeline
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.signatures import tacotron2_signatures


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


class Steps:
    """Stands in for ``decoder_iter``: frames are the number of the step, and clip i ends with step ``ends[i]``."""

    def __init__(self, ends, at_a_time):
        self.ends, self.steps_at_a_time, self.step = np.array(ends), at_a_time, 0

    def upload(self, name, array):
        return array

    def run(self, inputs):
        self.step += 1
        frames = np.full_like(inputs["decoder_input"], self.step)
        states = {f"out_{name}": value for name, value in inputs.items()}
        return states | {
            "decoder_output": frames,
            "gate_prediction": np.where(self.ends == self.step, 9.0, -9.0)[:, None],
        }

    def fetch_all(self, values):
        return np.stack(values)


@pytest.mark.parametrize("at_a_time", [1, 4, 16])
@pytest.mark.parametrize("ends, lengths", [((2, 5), (2, 5)), ((6, 99), (6, 6)), ((99, 99), (6, 6)), ((1, 1), (1, 1))])
def test_clips_end_with_their_gate_or_the_last_step_however_rarely_it_looks(ends, lengths, at_a_time):
    config = tacotron2.config.Config()
    signature = tacotron2_signatures(config)["decoder_iter"]
    own = Pipeline.__new__(Pipeline)
    own.sizes, own.n_mel, own.frames_per_step = config.tacotron2_config, 80, 1
    own.contents = SimpleNamespace(signature=lambda graph: signature)
    own.graphs = {"decoder_iter": Steps(ends, at_a_time)}
    masks = np.zeros((2, 6, 2, 256), np.float32)
    mel, found = own._step_by_step({"mask": np.zeros((2, 7), bool)}, masks)
    assert tuple(found) == lengths
    assert mel.shape == (2, 80, max(lengths))
    assert (mel == np.arange(1, max(lengths) + 1)).all()
