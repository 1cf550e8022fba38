"""The work of one device: what it is told, what it measures, what it writes, and when it is done."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from deploy_toys import engines, raw

from common.program import UserError
from tools.deploy.artifacts import read_contents
from tools.deploy.infer_python import worker
from tools.deploy.infer_python.latency import Iteration
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.infer_python.requests import Request
from tools.deploy.infer_python.worker import Ready, Work, do

FRAMES = {"Hi.": 6, "Go on.": 9}
"Of the clips of a text; the limit is 9."


class FakeEngine:
    device_name = "a card"

    def __init__(self, did, *told):
        self.did = did
        did.append(("engine", *told))

    def close(self):
        self.did.append("closed")


class FakePipeline:
    """Of 3 frames a step; each stage takes as many seconds as its name has letters."""

    limit, frames_per_step, hop_length = 3, 3, 10

    def __init__(self, did, to_ids, with_waveglow):
        self.did, self.seconds, self.graphs = did, {}, {"a": 1}
        self.ids = {tuple(to_ids(text)): frames for text, frames in FRAMES.items()}
        did.append(("pipeline", with_waveglow))

    def add(self, *stages):
        for stage in stages:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + len(stage)

    def spectrograms(self, texts, seeds):
        self.did.append(("spectrograms", seeds))
        self.add("encoder", "decoder", "postnet")
        lengths = np.array([self.ids[tuple(text)] for text in texts])
        return np.zeros((len(texts), 6, lengths.max()), np.float32), lengths

    def audio(self, mel, lengths, sigma, seeds):
        self.did.append(("audio", sigma, seeds))
        self.add("waveglow")
        return [np.full(length * self.hop_length, 0.5, np.float32) for length in lengths]


@pytest.fixture
def did(monkeypatch):
    """What was asked of the engine and the pipeline. Each look at the clock takes 1, 2, 4, ... s."""
    did = []
    monkeypatch.setattr(worker, "find_engine", lambda name: lambda *told: FakeEngine(did, name, *told))
    monkeypatch.setattr(
        worker,
        "Pipeline",
        lambda folder, contents, engine, waveglow: FakePipeline(did, worker.reader(contents), waveglow),
    )
    clock = (2.0**each for each in count())
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=clock.__next__))
    return did


def work(folder, batches, warmup=(), with_waveglow=True):
    contents = replace(raw(), engine="an engine", options={"a": 1}, ranges={"batch": [1, 2, 4]})
    contents.waveglow.data_config.sampling_rate = 1000
    return Work(folder, contents, 3, 5, list(warmup), batches, 0.7, with_waveglow)


def clip(folder, text, seed, name, **more):
    return Request(text, seed, folder / name, **more)


def test_the_device_gives_its_name_warms_up_says_so_and_gives_itself_back(tmp_path, did):
    warm, counted = [clip(tmp_path, "Hi.", 8, "a.wav")], [clip(tmp_path, "Hi.", 9, "b.wav")]
    messages = do(work(tmp_path, [counted], [warm, warm]))
    assert next(messages) == "a card"
    assert next(messages) == Ready()
    spoken = lambda seed: [("spectrograms", [seed]), ("audio", 0.7, [seed])]  # noqa: E731
    assert did == [("engine", "an engine", 3, 5, {"a": 1}), ("pipeline", True), *spoken(8), *spoken(8)]
    assert isinstance(next(messages), Iteration)
    assert list(messages) == []
    assert did[6:] == [*spoken(9), "closed"]


def test_each_figure_is_of_its_own_part_and_of_its_own_batch(tmp_path, did):
    """Clips that are as long as they can be have found no end."""
    clips = [clip(tmp_path, text, i, f"{i}.wav") for i, text in enumerate(["Hi.", "Go on.", "Go on."])]
    _, _, *iterations = do(work(tmp_path, [clips, clips[:1]]))
    stages = {"encoder": 7, "decoder": 7, "postnet": 7, "waveglow": 8}
    sizes = dict(batch=3, mels=9, samples=3 * 9 * 10, endless=2), dict(batch=1, mels=6, samples=60, endless=0)
    for begin, size, iteration in zip((1, 32), sizes, iterations, strict=True):
        # Looks at 1, 2, 4, 8 and 16 times the beginning: text, ids, mel, audio, wavs.
        clock = dict(preprocessing=1, tacotron2=2, latency=6, postprocessing=8)
        seconds = {name: begin * value for name, value in clock.items()}
        assert vars(iteration) == stages | size | seconds


def test_without_waveglow_there_is_neither_audio_nor_a_time_of_it(tmp_path, did):
    _, _, iteration = do(work(tmp_path, [[clip(tmp_path, "Hi.", 0, "a.wav")]], with_waveglow=False))
    assert (iteration.waveglow, iteration.samples, iteration.mels) == (0, 0, 6)
    assert iteration.latency == iteration.tacotron2 > 0
    assert did[1] == ("pipeline", False)
    assert list(tmp_path.iterdir()) == []


def test_a_wav_has_its_own_clips_alone_also_over_batches(tmp_path, did):
    """With the silence behind each, in seconds of its rate."""
    one = [clip(tmp_path, "Hi.", 0, "a.wav", pause=0.05, ends=False)]
    two = [clip(tmp_path, "Go on.", 1, "a.wav", pause=0.02), clip(tmp_path, "Hi.", 2, "b.wav")]
    messages = do(work(tmp_path, [one, two]))
    while not isinstance(next(messages), Iteration):
        pass
    assert not (tmp_path / "a.wav").exists()  # its end is in the next batch
    list(messages)
    audio, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 1000
    assert audio.tolist() == [0.5] * 60 + [0] * 50 + [0.5] * 90 + [0] * 20
    assert soundfile.read(tmp_path / "b.wav")[0].tolist() == [0.5] * 60


def not_finite(pipeline, texts):
    pipeline.seconds |= dict.fromkeys(["encoder", "decoder", "postnet"], 1.0)
    return np.full((len(texts), 6, 40), np.nan, np.float32), np.full(len(texts), 40)


@pytest.mark.parametrize("with_waveglow", [True, False])
def test_a_spectrogram_that_is_not_finite_is_refused(tmp_path, monkeypatch, with_waveglow):
    contents = read_contents(engines(), "onnxruntime", "")
    monkeypatch.setattr(Pipeline, "spectrograms", lambda self, texts, seeds: not_finite(self, texts))
    clips = [[Request("Hello.", 1, tmp_path / "a.wav")]]
    with pytest.raises(UserError, match="is not finite: force_float32 does not suffice here"):
        list(do(Work(engines(), contents, 0, 1, [], clips, 0.6, with_waveglow)))
    assert not (tmp_path / "a.wav").exists()


def test_audio_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    """Of a spectrogram that is one."""
    monkeypatch.setattr(Pipeline, "audio", lambda self, mel, lengths, *_: [np.full(9, np.nan, np.float32)])
    clips = [[Request("Hello.", 1, tmp_path / "a.wav")]]
    work = Work(engines(), read_contents(engines(), "onnxruntime", ""), 0, 1, [], clips, 0.6, with_waveglow=True)
    with pytest.raises(UserError, match="is not finite: force_float32 does not suffice here"):
        list(do(work))
