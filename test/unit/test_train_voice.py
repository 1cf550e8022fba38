"""Training a voice on a card, tried out on the CPU: its batches, its learning rate, the whole program."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_synthesize import run as synthesize

import tacotron2.config
import waveglow.config
from common import program
from common.checkpoints import native
from common.checkpoints.interchange import read
from common.config_reading import from_dict
from common.cuda_graph import Stream
from common.program import UserError
from common.training.run import Progress
from conftest import ROOT, make_corpus, toy_config, toy_tacotron2_config, write_config
from runs import CPU, make_run
from tools import train_voice
from tools.voice import corpus_on_card, timed_training
from tools.voice.corpus_on_card import Segments, Utterances, load_corpus
from tools.voice.graphed_step import graphed_step
from waveglow.loss import WaveGlowLoss


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", clips=25, seconds=0.3)


def configured(values: dict, package, **train):
    values = values | {
        "train_config": {"ema_decay": 0.9, "batch_size": 4, "warmup_steps": 2, "grad_clip": 1.0, **train}
    }
    return from_dict(package.Config, values)


@pytest.fixture(scope="module")
def t2_config():
    return configured(toy_tacotron2_config(), tacotron2.config)


@pytest.fixture(scope="module")
def corpus(data, t2_config):
    return load_corpus(str(data), t2_config, CPU)


def test_segments_lie_within_a_clip(corpus):
    """With samples that tell where they are from; so many segments come from every clip, and from all of it."""
    config = configured(toy_config(), waveglow.config, batch_size=1000)
    starts, lengths, size = corpus.starts(), corpus.lengths, config.data_config.segment_length
    numbered = torch.arange(len(corpus.audio), dtype=torch.int32)
    corpus = SimpleNamespace(audio=numbered, lengths=lengths, starts=corpus.starts)
    found = (Segments(corpus, config, CPU).batch()["audio"] * 32768).numpy().astype(int)
    assert found.shape == (1000, size)
    assert (np.diff(found) == 1).all()
    clips = np.searchsorted(starts, found[:, 0], side="right") - 1
    assert set(clips) == set(range(len(lengths)))
    places = (found[:, 0] - starts[clips]) / (lengths[clips] - size)
    assert places.min() < 0.1
    assert 0.9 < places.max() <= 1


def test_segments_have_their_spectrograms(corpus):
    config = configured(toy_config(), waveglow.config)
    batch = Segments(corpus, config, CPU).batch()
    expected = waveglow.config.build_mel(config)(batch["audio"])
    assert torch.equal(batch["mel"], expected)


def test_an_epoch_has_each_clip_once(corpus, t2_config):
    utterances = Utterances(corpus, t2_config, CPU, buckets=3)
    for number, first in enumerate(utterances.first_batches()):
        assert len(first["text"]) == 4
        assert first["mel"].shape[2] % 16 == 0
        assert first["text"].shape[1:] == utterances.buckets[number]["text"].shape[1:]
    steps = sum(len(bucket["text"]) // 4 for bucket in utterances.buckets)
    sums = []
    for _, (number, batch) in zip(range(steps), utterances.batches()):
        assert all(tensor.shape[1:] == utterances.buckets[number][name].shape[1:] for name, tensor in batch.items())
        sums += batch["mel"].sum((1, 2)).tolist()
    assert len(sums) == len(set(sums)) == 4 * steps


def test_what_is_behind_a_clip_is_zero(corpus, t2_config):
    (batch, *_) = Utterances(corpus, t2_config, CPU, buckets=1).first_batches()
    mel = tacotron2.config.build_mel(t2_config)
    shortest = int(np.argmin(corpus.lengths))
    expected = mel(list(corpus.clips())[shortest][None])[0]
    length = int(batch["mel_lengths"][0])
    assert length == expected.shape[1]
    assert (batch["mel"][0, :, :length] - expected).abs().max() < 0.005
    assert not batch["mel"][0, :, length:].any()
    assert not batch["text"][0, int(batch["text_lengths"][0]) :].any()


def test_too_little_to_learn_from(corpus):
    with pytest.raises(UserError, match="do not make Tacotron2's batch_size of 64"):
        Utterances(corpus, configured(toy_tacotron2_config(), tacotron2.config, batch_size=64), CPU, buckets=3)
    config = configured(toy_config() | {"data_config": {"segment_length": 22050}}, waveglow.config)
    with pytest.raises(UserError, match="segment_length of 22050"):
        Segments(corpus, config, CPU)


def test_the_learning_rate_rises_stays_and_falls(t2_config):
    def at(done, steps):
        run = SimpleNamespace(config=t2_config, progress=Progress(iteration=steps))
        return timed_training.learning_rate(run, done) / t2_config.train_config.learning_rate

    assert at(0, 0) == 0.5
    assert at(0.1, 5) == at(0.5, 900) == 1
    assert at(0.75, 999) == pytest.approx(0.5)
    assert at(1, 999) == pytest.approx(0)


class Clock(threading.local):
    """Stands in for the module time: with each look of a thread a second has gone by for it."""

    now = 0.0

    def time(self) -> float:
        self.now += 1
        return self.now


def test_the_program(data, tmp_path, monkeypatch, run_here):
    """It trains both models as long as it is told, which then speak; the losses fall."""
    monkeypatch.setattr(train_voice, "time", Clock())
    monkeypatch.setattr(timed_training, "time", Clock())
    monkeypatch.setattr(program, "signal", SimpleNamespace(signal=lambda *_: None))
    options = []
    for name, values in (("tacotron2", toy_tacotron2_config()), ("waveglow", toy_config())):
        train = {"ema_decay": 0.9, "batch_size": 4, "learning_rate": 3e-3, "grad_clip": 1.0}
        path = write_config(tmp_path / f"{name}.json", values | {"train_config": train})
        options.append(f"--{name}_config={path}")
    out = tmp_path / "out"
    done = run_here(train_voice.main, data, out, "--minutes=0.25", "--device=cpu", *options)
    assert done.returncode == 0, done.stderr
    found = {path.name.split("_")[0]: path for path in out.iterdir()}
    assert found.keys() == {"tacotron2", "waveglow"}
    for name, path in found.items():
        losses = read(path, name).progress["losses"]
        assert len(losses) == int(path.name.split("_")[1]) == 14
        assert max(losses[-3:]) < min(losses[:3])
    # A toy that cannot find an end is flawed, and yet it speaks.
    models = [f"--{name}={path}" for name, path in found.items()]
    synthesize(monkeypatch, "A tone.", *models, "-o", tmp_path / "speech.wav")
    assert (tmp_path / "speech.wav").stat().st_size > 1000


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (1.0, np.inf)])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, monkeypatch, loss, norm):
    monkeypatch.setattr(timed_training, "time", Clock())
    run = make_run(toy_config(), tmp_path, ema_decay=0.9)
    before = [parameter.detach().clone() for parameter in run.precision.model_params]

    def step():
        for parameter in run.precision.model_params:
            parameter.grad = torch.full_like(parameter, np.nan)
        return torch.tensor(loss), torch.tensor(norm)

    timed_training.train(run, step, Stream(CPU, first=True), 5, SimpleNamespace(requested=False))
    assert run.progress.iteration > 1
    assert all(map(torch.equal, before, run.precision.model_params))


def check_graphed_step(folder, device, clip=0.5):
    """Loss and gradients are those of the plain step, of other batches than the first one, too."""
    values = toy_config()
    run = make_run(values, folder, device, grad_clip=clip)
    config = from_dict(waveglow.config.Config, values)
    audio = torch.randn(3, 4, config.data_config.segment_length, device=device.torch_device) / 10
    mel = waveglow.config.build_mel(config).to(device.torch_device)
    batches = [{"audio": each, "mel": mel(each)} for each in audio]
    criterion = WaveGlowLoss()
    step = graphed_step(run, Stream(device, first=True), lambda batch: criterion(run.model(**batch)), batches[0])
    for batch in batches[1:]:
        loss = step(batch)[0].item()
        gradients = [parameter.grad.clone() for parameter in run.precision.model_params]
        run.model.zero_grad(set_to_none=False)
        plain = criterion(run.model(**batch))
        plain.backward()
        torch.nn.utils.clip_grad_norm_(run.precision.model_params, clip)
        assert loss == pytest.approx(plain.item(), rel=1e-5)
        for ours, parameter in zip(gradients, run.precision.model_params, strict=True):
            assert (ours - parameter.grad).abs().max() < 1e-4


def test_a_step_is_the_plain_one(tmp_path):
    check_graphed_step(tmp_path, CPU)


def test_it_begins_with_given_weights(tmp_path):
    """With no time to train it writes what it was given; of another size it refuses it."""
    package, values = waveglow.config, toy_config()
    values["train_config"] |= {"ema_decay": 0.9}
    path = write_config(tmp_path / "waveglow.json", values)
    torch.manual_seed(7)
    model = package.build_model(from_dict(package.Config, values))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight)
    native.save(
        tmp_path / "origin",
        {"model": model.state_dict(), "config": values, "iteration": 3, "progress": vars(Progress(3))},
    )
    args = SimpleNamespace(waveglow_config=str(path), output_directory=str(tmp_path), waveglow=str(tmp_path / "origin"))
    run = train_voice.start(args, "waveglow", package, CPU)
    timed_training.save_weights(run)
    (written,) = tmp_path.glob("waveglow_*")
    found = read(written, "waveglow").weights
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    values["waveglow_config"] |= {"n_flows": 4}
    write_config(path, values)
    with pytest.raises(UserError, match="n_flows"):
        train_voice.start(args, "waveglow", package, CPU)


def test_it_says_what_does_not_fit(data, tmp_path):
    """And the exit code tells that it failed."""
    path = write_config(tmp_path / "waveglow.json", toy_config())
    command = [sys.executable, ROOT / "tools/train_voice.py", data, tmp_path / "out", "--device=cpu"]
    done = subprocess.run([*command, f"--waveglow_config={path}"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 1
    assert "--waveglow_config: train_config needs an ema_decay above 0" in done.stderr


def test_the_checkpoint_holds_the_average_and_not_the_last_weights(tmp_path):
    run = make_run(toy_config(), tmp_path, ema_decay=0.9)
    average = {name: tensor.clone() for name, tensor in run.average.weights.items()}
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter += 1
    found = read(timed_training.save_weights(run), "waveglow").weights
    assert all(torch.equal(found[name], tensor) for name, tensor in average.items())


def test_hours_are_by_the_rate_of_the_configuration(data, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(corpus_on_card, "read_wav", lambda path, rate: np.zeros(15 * rate, np.float32))
    config = configured(toy_tacotron2_config() | {"data_config": {"sampling_rate": 16000}}, tacotron2.config)
    clips = len(load_corpus(str(data), config, CPU).texts)
    assert f"data: {clips} clips, {clips * 15 / 3600:.2f} h" in caplog.messages
