"""tools/benchmark.py: what each job computes and how many units a call makes, with models of toy size."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import tacotron2.config
import waveglow.config
import waveglow.vocoder
from common.config_reading import from_dict
from common.corpus import read_transcripts
from conftest import RATE, toy_config, toy_tacotron2_config
from runs import CPU
from tacotron2.recorded_steps import RecordedSteps
from tools.speed import jobs
from tools.speed.jobs import JOBS, LEVELS, batches_on, noise_corpus, tacotron2_batch, waveglow_batch

CARD = SimpleNamespace(type="cuda")


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """Configurations of toy size in the place of the shipped ones, which were asked for; 5 frames are decoded."""
    asked = []

    def load(path, package):
        asked.append(Path(path).relative_to(jobs.ROOT).as_posix())
        values = toy_config() if package is waveglow.config.Config else toy_tacotron2_config()
        for section, mel in (("waveglow_config", 80), ("tacotron2_config", 80)):
            if section in values:
                values[section]["n_mel_channels"] = mel
        values["train_config"]["output_directory"] = str(tmp_path)
        return from_dict(package, values)

    monkeypatch.setattr(jobs, "load_config", load)
    monkeypatch.setattr(jobs, "DECODED", 5)
    monkeypatch.setattr(jobs, "TRAINING_FRAMES", (20, 50))
    monkeypatch.setattr(jobs, "TRAINING_SYMBOLS", (6, 15))
    return asked


@pytest.fixture
def prepared(monkeypatch):
    """With what models are brought to their precision."""
    given = []

    def prepare(model, device, level, npu_config, int8=False, real=jobs.prepare):
        given.append((level, int8))
        assert not model.training and not any(each.requires_grad for each in model.parameters())
        return real(model, device, level, npu_config)

    monkeypatch.setattr(jobs, "prepare", prepare)
    monkeypatch.setattr(waveglow.vocoder.inference, "prepare", prepare)
    return given


def test_batches_and_levels_are_those_of_cpus_and_cards():
    assert batches_on(CPU) == {
        "waveglow-train": (2,), "waveglow-infer": (1,), "tacotron2-infer": (1,), "tacotron2-train": (16,),
        "voice-infer": (1,),
    }  # fmt: skip
    assert batches_on(CARD) == {
        "waveglow-train": (24,), "waveglow-infer": (1,), "tacotron2-infer": (1, 4, 8), "tacotron2-train": (64,),
        "voice-infer": (1,),
    }  # fmt: skip
    assert LEVELS == {
        "float32": "O0", "tf32": "TF32", "bf16": "O1", "half": "O1", "half, recomputed": "O1", "half, compiled": "O1",
        "int8": "O0",
    }  # fmt: skip


@pytest.mark.parametrize(("device", "samples"), [(CPU, 8000), (CARD, 16000)])
def test_segments_are_as_long_as_in_a_training_and_the_same_each_time(device, samples):
    batch = waveglow_batch(device, 3)
    assert (batch["audio"].shape, batch["mel"].shape) == ((3, samples), (3, 80, 1 + samples // 256))
    assert batch["audio"].std() == pytest.approx(0.1, rel=0.05)
    assert (batch["mel"].mean().item(), batch["mel"].std().item()) == pytest.approx((-5, 1), abs=0.1)
    assert torch.equal(batch["audio"], waveglow_batch(device, 3)["audio"])


def test_clips_of_a_training_are_spread_evenly_and_padded():
    batch = tacotron2_batch(4)
    assert batch["mel_lengths"].tolist() == [870, 696, 523, 350]
    assert batch["text_lengths"].tolist() == [150, 120, 90, 60]
    for name, lengths in (("text", batch["text_lengths"]), ("mel", batch["mel_lengths"])):
        for row, length in zip(batch[name], lengths, strict=True):
            assert (row[..., :length] != 0).all() and (row[..., length:] == 0).all()
    assert (batch["text"].max().item(), batch["text"].shape, batch["mel"].shape) == (147, (4, 150), (4, 80, 870))


@pytest.mark.parametrize(("precision", "amp", "recompute"), [
    ("float32", "O0", False), ("half", "O1", False), ("half, recomputed", "O1", True),
])  # fmt: skip
def test_a_step_of_waveglow_changes_the_weights_at_its_precision(toys, monkeypatch, precision, amp, recompute):
    runs, losses = [], []

    def make_run(*given, real=jobs.make_run):
        runs.append(real(*given))
        return runs[-1]

    class Loss(jobs.WaveGlowLoss):
        def __init__(self, sigma):
            losses.append(sigma)
            super().__init__(sigma)

    monkeypatch.setattr(jobs, "make_run", make_run)
    monkeypatch.setattr(jobs, "WaveGlowLoss", Loss)
    job = JOBS["waveglow-train"](CPU, precision, 2)
    (run,) = runs
    before = [each.detach().clone() for each in run.model.parameters()]
    loss, finite, _ = job.work()
    assert finite and loss
    assert any(not torch.equal(*both) for both in zip(before, run.model.parameters(), strict=True))
    assert (job.units, run.config.train_config.amp, run.model.recompute) == (16000, amp, recompute)
    assert run.model.training and losses == [run.config.train_config.sigma]
    assert toys == ["configs/waveglow.json"]


def test_a_step_of_tacotron2_changes_the_weights_and_counts_frames_without_padding(toys, monkeypatch):
    runs = []
    monkeypatch.setattr(jobs, "make_run", lambda *given, real=jobs.make_run: runs.append(real(*given)) or runs[-1])
    job = JOBS["tacotron2-train"](CPU, "float32", 3)
    before = [each.detach().clone() for each in runs[0].model.parameters()]
    assert job.work()[1]
    assert any(not torch.equal(*both) for both in zip(before, runs[0].model.parameters(), strict=True))
    assert job.units == 50 + 35 + 20  # without padding
    assert runs[0].config.train_config.amp == "O0" and toys == ["configs/tacotron2.json"]


@pytest.mark.parametrize(
    ("precision", "level"), [("float32", ("O0", False)), ("half", ("O1", False)), ("int8", ("O0", True))]
)
def test_clips_of_100_frames_become_audio(toys, prepared, precision, level):
    job = JOBS["waveglow-infer"](CPU, precision, 2)
    audio = job.work()
    assert (audio.shape, audio.dtype, audio.device.type) == ((2, 25600), torch.float32, "cpu")
    assert audio.std() > 0.1
    assert job.units == audio.numel()
    assert prepared == [level]


@pytest.mark.parametrize(
    ("precision", "level"), [("float32", ("O0", False)), ("half", ("O1", False)), ("int8", ("O0", True))]
)
def test_texts_of_128_symbols_become_frames_whatever_the_gate_says(toys, prepared, monkeypatch, precision, level):
    given = []
    real = tacotron2.config.build_model

    def build(config):
        model = real(config)
        model.decoder.gate_layer.linear_layer.bias.data.fill_(99.0)
        infer = model.infer
        model.infer = lambda *asked: given.append(asked) or infer(*asked)
        return model

    monkeypatch.setattr(tacotron2.config, "build_model", build)
    job = JOBS["tacotron2-infer"](CPU, precision, 2)
    assert [mel.shape for mel in job.work()] == [(80, 5)] * 2
    assert job.units == 10 and prepared == [level]
    ((text, lengths, seeds, make_steps),) = given
    assert isinstance(make_steps, RecordedSteps)
    assert (text.shape, lengths.tolist(), seeds) == ((2, 128), [128, 128], [0, 1])
    assert text.min() >= 1 and text.max() <= 147


@pytest.mark.parametrize(("precision", "level"), [("float32", "O0"), ("half", "O1")])
def test_the_voice_speaks_a_sentence(monkeypatch, precision, level):
    asked = []

    class Synthesizer:
        def __init__(self, *given):
            asked.append(given)

        def speak(self, texts, seed):
            asked.append((texts, seed))
            return iter([SimpleNamespace(utterance=SimpleNamespace(mel="mel"))])

    class Vocoder(Synthesizer):
        def synthesize(self, *given):
            asked.append(given)
            return torch.zeros(77)

    voice = SimpleNamespace(tacotron2="t", waveglow="w", settings=SimpleNamespace(sigma=0.4))
    monkeypatch.setattr(jobs, "find_voice", lambda: voice)
    monkeypatch.setattr(jobs, "Synthesizer", Synthesizer)
    monkeypatch.setattr(waveglow.vocoder, "Vocoder", Vocoder)
    assert JOBS["voice-infer"](CPU, precision, 1).units == 77
    assert asked == [("t", CPU, level), ("w", CPU, level), ([jobs.SENTENCE], 0), ("mel", 0.4)]
    assert len(jobs.SENTENCE) == 128


# ---- loading ----


def test_a_corpus_of_noise_is_there_as_long_as_it_is_needed():
    corpus = noise_corpus()
    folder = Path(corpus.name)
    wavs = sorted((folder / "wavs").iterdir())
    assert [path.name for path in wavs] == [f"{i:03d}.wav" for i in range(16)]
    for path in wavs[:2]:
        audio, rate = soundfile.read(path)
        assert (rate, len(audio) / rate) == (RATE, 6.6)
        assert np.abs(audio).max() == pytest.approx(0.5, abs=0.01)
    assert read_transcripts(folder / "metadata.csv").keys() == {f"{i:03d}" for i in range(16)}
    corpus.cleanup()
    assert not folder.exists()


def test_loading_takes_every_segment_once_an_epoch(monkeypatch):
    loaded = []

    class Segments:
        def __init__(self, clips, data, mel, seed):
            assert len(clips) == 16

        def __getitem__(self, item):
            loaded.append(item)

    monkeypatch.setattr(jobs, "TrainingSegments", Segments)
    job = jobs.waveglow_data()
    for _ in range(2):
        job.work()
    assert loaded == [(epoch, i) for epoch in range(2) for i in range(16)]
    assert job.units == 16 * 16000 and Path(job.keep.name).is_dir()


def test_loading_of_clips_with_their_spectrograms():
    job = jobs.tacotron2_data()
    batch = job.work()
    frames = 1 + int(RATE * 6.6) // 256
    assert job.units == 16 * frames
    assert batch["mel"].shape == (16, 80, frames)
    assert len(list(Path(job.keep.name, "mels").iterdir())) >= 16  # they come from the cache


def test_the_jobs_are_training_and_inference_of_both_models_and_the_voice():
    assert list(JOBS) == ["waveglow-train", "waveglow-infer", "tacotron2-infer", "tacotron2-train", "voice-infer"]
    assert jobs.DATA.keys() == {"waveglow-train", "tacotron2-train"}
