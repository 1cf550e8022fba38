"""A voice whose folder holds engines of tools/deploy and no checkpoints: it speaks as the checkpoints do."""

import json
import shutil
from dataclasses import replace
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deploy_toys import make, models_dir

from common import voices
from common.mel_forms import FLOOR
from common.program import UserError
from conftest import RATE, ROOT
from runs import CPU
from serving import SETTINGS, TEXT, assert_same, whole
from tacotron2 import synthesizer as module
from tools.deploy.artifacts import read_any_contents, write_contents
from tools.deploy.infer_python.synthesizer import EngineSynthesizer
from tools.deploy.infer_python.vocoder import EngineVocoder
from waveglow.vocoder import Vocoder

loading = pytest.importorskip("tools.serve.loading", reason="requirement-serve.txt is not installed")
openai = pytest.importorskip("openai")

pytest_plugins = ["serving"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint():
    return Vocoder(models_dir() / "waveglow.safetensors", CPU)


@pytest.fixture
def speaker(folder, monkeypatch):
    """Of engines; in the place of the plugin's own."""
    monkeypatch.setattr(module, "find_flaw", lambda utterance: "")
    speaker = loading.load(loading.Entry("toy", SETTINGS, RATE, engines=folder), CPU, "", loading.Decoding())
    yield speaker
    speaker.close()


@pytest.fixture
def shelf(folder, tmp_path, monkeypatch):
    """A folder voices/ with one voice, of engines."""
    monkeypatch.setattr(voices, "FOLDER", tmp_path)
    shutil.copytree(folder, tmp_path / "toy")
    return tmp_path


def make_mel(frames):
    return torch.randn(6, frames, generator=torch.Generator().manual_seed(1)) - 5


def vocoder_of(folder, **ranges):
    """As if the engines had been built for other sizes: ONNX Runtime's take any."""
    contents = read_any_contents(folder, "")
    return EngineVocoder(folder, replace(contents, ranges=contents.ranges | ranges))


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_the_sound_is_that_of_the_checkpoint(tmp_path, checkpoint, engine, strength):
    """With the same seed, sigma and denoiser."""
    vocoder = EngineVocoder(tmp_path, make(tmp_path, engine))
    ours, theirs = (each.synthesize(make_mel(100), 0.5, strength, seed=7) for each in (vocoder, checkpoint))
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=0)


def test_what_is_shorter_than_the_engine_takes_ends_in_its_silence(folder, checkpoint):
    """The model hears silence behind the end: what lies farther from it than its context is as it was."""
    vocoder, mel = vocoder_of(folder, mel=[60, 64, 200]), make_mel(40)
    ours, theirs = (each.synthesize(mel, 0.5, seed=7) for each in (vocoder, checkpoint))
    assert ours.shape == theirs.shape
    inner = (40 - vocoder.context) * vocoder.model.hop_length
    torch.testing.assert_close(ours[:inner], theirs[:inner], atol=5e-6, rtol=0)
    assert (ours - theirs).abs().max() > 1e-3
    longer = torch.nn.functional.pad(mel, (0, 20), value=FLOOR)
    ours, theirs = (each.synthesize(some, 0.0) for each, some in ((vocoder, mel), (checkpoint, longer)))
    torch.testing.assert_close(ours, theirs[: len(ours)], atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 1.5])
@pytest.mark.parametrize("sizes", [[32, 64, 1000], [32, 64, 88], [88, 88, 88]])
@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_of_any_size_are_the_whole_within_the_engine_s_sizes(folder, checkpoint, sizes, batch, strength):
    vocoder, taken = vocoder_of(folder, mel=sizes, batch=[batch] * 3), []
    run = vocoder.graph.run
    vocoder.graph.run = lambda inputs: taken.append(inputs["mel"].shape) or run(inputs)
    whole = checkpoint.synthesize(make_mel(211), 0.5, strength)
    for frames in ([50], [300], [1, 50, 7]):
        parts = list(vocoder.stream(make_mel(211), 0.5, strength, 1234, cycle(frames)))
        torch.testing.assert_close(torch.cat(parts), whole, atol=5e-6, rtol=0)
    assert {shape[0] for shape in taken} == {batch}
    assert sizes[0] <= min(shape[2] for shape in taken)
    assert sizes[2] >= max(shape[2] for shape in taken)


def test_chunks_fit_where_they_may_not_begin_at_any_frame(folder):
    """With a hop of 320 samples only each fourth frame begins where the denoiser has a frame of its own."""
    contents, taken = read_any_contents(folder, ""), []
    contents.waveglow.data_config.hop_length = 320
    vocoder = EngineVocoder(folder, replace(contents, ranges=contents.ranges | {"mel": [32, 64, 121]}))
    assert vocoder.grid == 4

    def run(inputs):
        taken.append(inputs["mel"].shape[2])
        return {"audio": np.zeros((1, 320 * taken[-1]), np.float32)}

    vocoder.graph = SimpleNamespace(run=run, fetch=lambda value: value)
    assert len(vocoder.synthesize(make_mel(500), 0.5, 0.0)) == 320 * 500
    assert max(taken) <= 121


def test_the_size_of_a_vocoder_is_that_of_its_graph(folder):
    assert vocoder_of(folder).bytes == (folder / "waveglow.onnx").stat().st_size


def test_engines_for_too_few_frames_are_refused(folder):
    with pytest.raises(UserError, match=r"take 87 mel frames at most, and WaveGlow needs 88 .* ranges.mel"):
        vocoder_of(folder, mel=[32, 64, 87])


def test_a_voice_of_engines_is_served(speaker, serve):
    assert (type(speaker.synthesizer), type(speaker.vocoder)) == (EngineSynthesizer, EngineVocoder)
    client = openai.OpenAI(base_url=f"{serve()}/v1", api_key="any", max_retries=0, timeout=60)
    answer = client.audio.speech.create(model="any", voice="toy", input=TEXT, response_format="pcm")
    expected = whole(speaker)
    assert np.abs(expected).max() > 300
    assert_same(np.frombuffer(answer.content, np.int16), expected)


def test_it_is_found_in_its_folder(shelf):
    write_contents(shelf / "toy", replace(read_any_contents(shelf / "toy", ""), sigma=0.45))
    (entry,) = loading.find_voices("toy")
    assert (entry.name, entry.rate, entry.engines) == ("toy", RATE, shelf / "toy")
    assert (entry.settings.sigma, entry.settings.text_cleaners) == (0.45, [])
    told = {"sigma": 0.9, "denoiser_strength": 0.1, "text_cleaners": ["basic_cleaners"]}
    (shelf / "toy/voice.json").write_text(json.dumps(told))
    (entry,) = loading.find_voices("toy")
    assert {name: getattr(entry.settings, name) for name in told} == told
    loading.make_engines([entry], loading.Decoding("onnxruntime", models_dir=shelf / "models"))
    assert not (shelf / "models").exists()


def test_what_is_said_of_a_voice_is_said_of_the_default_alone(shelf):
    (shelf / "heart").symlink_to(ROOT / "voices/heart")
    hints = {"tacotron2_config": {"gate_threshold": 0.3}}
    entries = loading.find_voices("heart", hints=hints)
    assert {entry.name: entry.hints for entry in entries} == {"heart": hints, "toy": {}}


def test_it_says_why_it_cannot_be_served(shelf):
    with pytest.raises(UserError, match="what is said of checkpoints"):
        loading.find_voices("toy", hints={"data_config": {"sampling_rate": 16000}})
    (shelf / "toy/waveglow.onnx").write_bytes(b"")
    (entry,) = loading.find_voices("toy")
    with pytest.raises(UserError, match=r"waveglow.onnx is truncated"):
        loading.load(entry, CPU, "", loading.Decoding())
    shutil.copytree(models_dir() / "onnx", shelf / "toy", dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"toy holds graphs: build engines of them"):
        loading.find_voices("toy")
    (shelf / "toy/contents.json").write_text("{}")
    with pytest.raises(UserError, match=r"contents.json cannot be used"):
        loading.find_voices("toy")
