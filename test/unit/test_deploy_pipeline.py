"""The pipeline around an engine's graphs: sizes, ends, seconds; mostly by stand-ins for them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from deploy_toys import SEEDS, TEXTS, make, models_dir, raw, start

import tacotron2.config
import waveglow.config
from common.program import UserError
from tacotron2.config import Tacotron2Config
from tacotron2.prenet import Prenet
from tools.deploy.artifacts import Contents
from tools.deploy.infer_python import pipeline
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.signatures import tacotron2_signatures


def test_a_stage_lasts_until_the_device_is_done_and_adds_up_until_it_is_cleared(monkeypatch):
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
    own.seconds.clear()
    with own.stage("decoder"):
        take(1)
    assert own.seconds == {"decoder": 1 + 2}


@pytest.mark.parametrize("frames_per_step, most, limit", [(1, 100, 9), (2, 100, 4), (2, 3, 3)])
def test_decoding_is_no_longer_than_the_engines_and_the_voice_allow(frames_per_step, most, limit):
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


def of_stubs(**graphs):
    """A pipeline of graphs that are functions, for 1 to 4 clips of 1 to 9 symbols and 8 frames."""
    own = Pipeline.__new__(Pipeline)
    ranges = {"batch": [1, 2, 4], "text": [1, 5, 9], "mel": [8, 8, 8]}
    own.contents = Contents("stub", {}, tacotron2.config.Config(), waveglow.config.Config(), 11, 0.6, ranges=ranges)
    own.engine, own.seconds, own.limit, own.hop_length = SimpleNamespace(wait=lambda: None), {}, 8, 256
    own.prenet = Prenet(80, 4, 0.5)
    own.graphs = {name: SimpleNamespace(run=run, fetch=lambda value: value) for name, run in graphs.items()}
    return own


@pytest.mark.parametrize("lengths", [[3, 5], [2, 1], [8, 8]])
def test_mels_end_with_the_longest_clip_though_the_graphs_take_more(lengths):
    memory = {"memory": np.zeros((2, 3, 4), np.float32), "processed_memory": np.zeros((2, 3, 4), np.float32)}
    rough = np.random.default_rng(0).normal(size=(2, 80, max(lengths))).astype(np.float32)
    given = []

    def refine(inputs):
        given.append(inputs["mel_outputs"])
        return {"mel_outputs_postnet": inputs["mel_outputs"] + 1}

    own = of_stubs(
        encoder=lambda inputs: dict(memory),
        decoder=lambda inputs: {"mel_outputs": rough, "mel_lengths": np.array(lengths, np.int32)},
        postnet=refine,
    )
    mel, found = own.spectrograms([[1, 2, 3], [4, 5]], [1, 2])
    assert found.tolist() == lengths
    np.testing.assert_array_equal(mel, rough + 1)
    assert given[0].shape == (2, 80, 8)


def test_what_fills_a_batch_up_leaves_nothing_behind():
    """Its row is spoken, too, and may be longer."""
    own = of_stubs(
        encoder=lambda inputs: {"memory": inputs["sequences"], "processed_memory": inputs["sequences"]},
        decoder=lambda inputs: {"mel_outputs": np.zeros((2, 80, 5)), "mel_lengths": np.array([3, 5], np.int32)},
        postnet=lambda inputs: {"mel_outputs_postnet": inputs["mel_outputs"]},
    )
    own.contents.ranges["batch"] = [2, 2, 4]
    mel, lengths = own.spectrograms([[1, 2, 3]], [1])[:2]
    assert (mel.shape, lengths.tolist()) == ((1, 80, 3), [3])


def test_each_stage_has_its_seconds():
    pipeline, _ = start(models_dir() / "onnx", raw())
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    pipeline.audio(mel, lengths, 0.6, SEEDS)
    assert list(pipeline.seconds) == ["encoder", "decoder", "postnet", "waveglow"]
    assert all(seconds > 0 for seconds in pipeline.seconds.values())


def test_batches_and_texts_below_the_range_are_filled_up(tmp_path):
    contents = make(tmp_path, batch=(3, 4, 8))
    pipeline, _ = start(tmp_path, contents)
    mel, lengths = pipeline.spectrograms([[12, 3]], [8])
    (audio,) = pipeline.audio(mel, lengths, 0.6, [8])
    free, _ = start(models_dir() / "onnx", raw())
    mel_alone, lengths_alone = free.spectrograms([[12, 3]], [8])
    assert mel.shape == mel_alone.shape
    assert lengths.tolist() == lengths_alone.tolist()
    assert np.abs(mel - mel_alone).max() < 1e-4
    assert len(audio) == 256 * lengths[0]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([[5, 6, 7]] * 9, "the batch is 9, and these engines are built for 1 to 8"),
        ([[5] * 257], "the longest text is 257, and these engines are built for 4 to 256"),
    ],
)
def test_a_batch_or_a_text_beyond_the_range_is_said_before_the_engine_fails(texts, says):
    pipeline, _ = start(models_dir() / "onnx", raw())
    with pytest.raises(UserError, match=says):
        pipeline.spectrograms(texts, [0] * len(texts))


def test_a_spectrogram_beyond_the_range_is_refused_and_one_at_its_end_spoken():
    pipeline, _ = start(models_dir() / "onnx", raw())
    pipeline.contents.ranges["mel"] = [4, 8, 16]
    assert len(pipeline.audio(np.zeros((1, 6, 16), np.float32), np.array([16]), 0.6, [0])[0]) == 16 * 256
    with pytest.raises(UserError, match="the number of mel frames is 17, and these engines are built for 4 to 16"):
        pipeline.audio(np.zeros((1, 6, 17), np.float32), np.array([17]), 0.6, [0])
