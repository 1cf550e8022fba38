"""The figures of WaveGlow's evaluation are what their names say."""

import itertools
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.audio import read_wav, write_wav
from common.checkpoints import native
from common.config_reading import from_dict
from common.evaluation.metrics import mel_cepstral_distortion
from common.program import UserError
from conftest import RATE, toy_config
from runs import CPU
from waveglow import evaluation, infer
from waveglow.config import Config, build_model
from waveglow.evaluation import ClipFigures, recording_loss, summarize
from waveglow.vocoder import Vocoder

LENGTH, SIGMA = 2048, 0.7


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A checkpoint of a model that was trained with another sigma than 1."""
    config = toy_config()
    config["train_config"]["sigma"] = SIGMA
    torch.manual_seed(0)
    model = build_model(from_dict(Config, config))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.03)
    path = tmp_path_factory.mktemp("evaluation") / "waveglow_3"
    state = {"model": model.state_dict(), "config": config, "iteration": 3, "progress": {"iteration": 3}}
    native.save(path, state)
    return path


@pytest.fixture
def vocoder(path):
    return Vocoder(path, CPU)


def speech(samples, seed=0):
    """Louder from segment to segment, so that each has a loss of its own."""
    noise = np.random.default_rng(seed).standard_normal(samples)
    return torch.from_numpy((0.1 * noise * np.linspace(0.2, 1, samples)).astype(np.float32))


def loss_of_segment(vocoder, audio, mel=None):
    """Equation 3 of WaveGlow's paper for one segment [N], for each of its samples; its own mel, or a given one."""
    z, log_s, log_det = vocoder.model(vocoder.mel(audio[None]) if mel is None else mel[None], audio[None])
    likelihood = -z.square().sum() / (2 * SIGMA**2) + sum(s.sum() for s in log_s) + sum(log_det)
    return -likelihood.item() / z.numel()


@pytest.mark.parametrize("samples", [LENGTH, 2 * LENGTH - 1, 3 * LENGTH, 3 * LENGTH + 700])
def test_the_loss_of_a_recording_is_the_mean_of_its_segments(vocoder, samples):
    """Of the whole ones, each as long as in training, with the training's sigma."""
    recording = speech(samples)
    segments = [recording[i * LENGTH : (i + 1) * LENGTH] for i in range(samples // LENGTH)]
    losses = [loss_of_segment(vocoder, segment) for segment in segments]
    assert len(set(losses)) == len(losses)
    assert recording_loss(recording, vocoder) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_segments_of_a_recording_begin_with_a_frame_of_its_given_mel(vocoder, tmp_path):
    """Also where a segment is no whole number of hops."""
    length = vocoder.config.data_config.segment_length = LENGTH + 100
    recording = speech(3 * length)
    mel = vocoder.mel(recording[None])[0]
    np.save(tmp_path / "a.npy", mel.numpy())
    losses = [
        loss_of_segment(vocoder, recording[256 * frame :][:length], mel[:, frame:][:, : length // 256 + 1])
        for frame in (0, length // 256, 2 * length // 256)
    ]
    mels = evaluation.segment_mels(vocoder, str(tmp_path))
    found = recording_loss(recording, vocoder, mels, tmp_path / "a.wav")
    assert found == pytest.approx(sum(losses) / 3, rel=5e-6)


@pytest.mark.parametrize("recording", [speech(100), torch.zeros(LENGTH)], ids=["short", "silent"])
def test_the_loss_of_what_gets_noise_is_the_same_each_time(vocoder, recording):
    loss = recording_loss(recording, vocoder)
    assert math.isfinite(loss) and loss == recording_loss(recording, vocoder)


def clip(name, **figures):
    values = dict.fromkeys(("seconds", "loss", "mel_l1", "mel_cepstral_distortion", "real_time_factor"), 1.0)
    return ClipFigures(name, **(values | {"clipped": 0} | figures))


def test_all_clips_together():
    """Time by length: 1 s took 3 s, 9 s took 9 s, so 10 s took 12 s. Other figures: the mean of clips that have one."""
    short = clip("a", seconds=1.0, real_time_factor=3.0, loss=-4.0, mel_l1=0.3, mel_cepstral_distortion=7.0)
    long = clip("b", seconds=9.0, real_time_factor=1.0, loss=-2.0, mel_l1=0.5, mel_cepstral_distortion=9.0)
    both = summarize([short, long])
    assert (both.seconds, both.real_time_factor) == (10, pytest.approx(1.2))
    assert (both.loss, both.mel_l1, both.mel_cepstral_distortion) == (-3.0, pytest.approx(0.4), 8.0)
    assert summarize([clip("c", loss=math.nan), short, long]).loss == -3.0
    assert math.isnan(summarize([clip("c", loss=math.nan)]).loss)


def test_each_figure_is_in_its_column():
    names = dict(seconds=1.0, loss=2.0, mel_l1=3.0, mel_cepstral_distortion=4.0, real_time_factor=5.0)
    assert evaluation.COLUMNS == ["seconds", "loss", "mel L1", "MCD (dB)", "real-time factor"]
    assert clip("a", **names).figures() == ["1.000", "2.000", "3.000", "4.000", "5.000"]
    assert clip("a", **names | {"loss": math.nan}).figures()[1] == "-"


def evaluate(monkeypatch, path, output, inputs, *options):
    """Evaluate with a clock that is a second later at each look; evaluation.json and the Results."""
    clock, results = itertools.count(), []
    for module in (infer, evaluation):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(infer, "Results", lambda **of: results.append(of) or SimpleNamespace(write=lambda args: None))
    arguments = [f"--pth_path={path}", f"--output_directory={output}", *options, *inputs]
    monkeypatch.setattr(sys, "argv", ["infer", "--device=cpu", *map(str, arguments)])
    infer.main()
    return json.loads((output / "evaluation.json").read_text()), *results


def test_figures_are_those_of_the_files(vocoder, path, tmp_path, monkeypatch):
    """Looks at the clock: at first, before and behind each synthesis, in the end."""
    lengths = {"a": RATE // 2, "b": RATE // 5}
    for name, samples in lengths.items():
        write_wav(tmp_path / f"{name}.wav", speech(samples), RATE)
    inputs = [tmp_path / f"{name}.wav" for name in lengths]
    found, results = evaluate(monkeypatch, path, tmp_path / "out", inputs, "--sigma=0.1", "--seed=5")
    for figures, (name, samples) in zip(found["clips"], lengths.items(), strict=True):
        recording = torch.from_numpy(read_wav(tmp_path / f"{name}.wav", RATE))
        audio = torch.from_numpy(read_wav(tmp_path / f"out/{name}_synthesis.wav", RATE))
        expected = vocoder.synthesize(vocoder.mel(recording[None])[0], 0.1, seed=5)[:samples]
        assert (audio - expected).abs().max() <= 0.501 / 32768
        assert figures["seconds"] == pytest.approx(samples / RATE)
        assert figures["real_time_factor"] == pytest.approx(RATE / samples)
        assert figures["loss"] == pytest.approx(recording_loss(recording, vocoder))
        mels = [vocoder.mel(samples[None])[0] for samples in (recording, expected)]
        assert figures["mel_l1"] == pytest.approx((mels[0] - mels[1]).abs().mean().item())
        assert figures["mel_cepstral_distortion"] == pytest.approx(mel_cepstral_distortion(*mels))
    assert found["overall"]["seconds"] == pytest.approx(sum(lengths.values()) / RATE)
    assert results["fps"] == 2 / 5 and results["iteration_seconds"] == 5 / 2
    assert results["samples_per_second"] == pytest.approx(sum(lengths.values()) / 5)
    assert results["losses"] == [pytest.approx(found["overall"]["loss"])]


def test_audio_that_is_not_finite_is_refused(path, tmp_path, monkeypatch):
    torch.save(torch.full((6, 3), -3.0), tmp_path / "a.pt")
    monkeypatch.setattr(Vocoder, "synthesize", lambda self, mel, *settings: torch.full((3 * 256,), math.nan))
    with pytest.raises(UserError, match=r"the audio of .*a\.pt is not finite: the checkpoint is not usable"):
        evaluate(monkeypatch, path, tmp_path / "out", [tmp_path / "a.pt"])
    assert not list((tmp_path / "out").glob("*.wav"))


def test_clipped_samples_are_counted(path, tmp_path, monkeypatch, caplog):
    torch.save(torch.full((6, 8), -3.0), tmp_path / "a.pt")
    loud = torch.linspace(0, 1, 8 * 256).round(decimals=1)
    monkeypatch.setattr(Vocoder, "synthesize", lambda self, mel, *settings: loud)
    found, _ = evaluate(monkeypatch, path, tmp_path / "out", [tmp_path / "a.pt"])
    clipped = int((loud == 1).sum())
    assert clipped > 10 and found["overall"]["clipped"] == found["clips"][0]["clipped"] == clipped
    assert f"{clipped} of 2,048 samples" in caplog.text


def page_of(monkeypatch, vocoder, tmp_path, inputs, *options):
    """What the page of these inputs is given, pictures and sounds as they were before they were packed."""
    content = {}
    monkeypatch.setattr(evaluation.page, "write_page", lambda path, **of: content.update(of, path=path))
    monkeypatch.setattr(evaluation.page, "as_wav", lambda audio, rate: (np.asarray(audio).tolist(), rate))
    monkeypatch.setattr(evaluation.pictures, "plot_spectrograms", lambda mels: mels)
    monkeypatch.setattr(evaluation.page, "as_png", lambda figure: figure)
    monkeypatch.setattr(evaluation, "plot_training", lambda training: ("curve of", training))
    given = ["--pth_path=a.pt", f"--output_directory={tmp_path}", *options, *map(str, inputs)]
    clips = [clip(path.stem, seconds=float(number)) for number, path in enumerate(inputs)]
    evaluation.write_page(tmp_path, inputs, clips, clip("overall"), vocoder, infer.read_arguments(given))
    return content


@pytest.mark.parametrize("int8", [False, True])
def test_the_page_has_the_sounds_and_the_spectrograms_of_each_clip(vocoder, tmp_path, monkeypatch, int8):
    """The original, if there is one, what was synthesized earlier, and what is now."""
    sounds = {name: (np.full(2000, i + 1) / 16).astype(np.float32) for i, name in enumerate(("a", "first", "now", "b"))}
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    write_wav(tmp_path / "a.wav", sounds["a"], RATE)
    write_wav(tmp_path / "first/a_synthesis.wav", sounds["first"], RATE)
    write_wav(tmp_path / "a_synthesis.wav", sounds["now"], RATE)
    write_wav(tmp_path / "b_synthesis.wav", sounds["b"], RATE)
    mel = torch.full((6, 9), -60.0)
    torch.save(mel, tmp_path / "b.pt")
    options = [f"--earlier={tmp_path / 'first'},{tmp_path / 'second'}", "--mel_form=db", "--sigma=0.25"]
    options += ["--denoiser_strength=0.5", *["--int8"] * int8]
    page = page_of(monkeypatch, vocoder, tmp_path, [tmp_path / "a.wav", tmp_path / "b.pt"], *options)
    of_a, of_b = page["clips"]
    assert list(of_a["sounds"].items()) == [
        ("original", (sounds["a"].tolist(), RATE)),
        ("first", (sounds["first"].tolist(), RATE)),
        ("synthesized", (sounds["now"].tolist(), RATE)),
    ]
    assert list(of_b["sounds"].items()) == [("synthesized", (sounds["b"].tolist(), RATE))]
    for entry, original in ((of_a, vocoder.mel(torch.from_numpy(sounds["a"])[None])[0]), (of_b, mel * 0.11512925)):
        (pictures,) = entry["images"].values()
        assert list(pictures) == ["original", "synthesized"]
        assert torch.allclose(pictures["original"], original)
        spoken = torch.from_numpy(sounds["now" if entry is of_a else "b"])
        assert torch.allclose(pictures["synthesized"], vocoder.mel(spoken[None])[0])
    assert [(entry["name"], entry["figures"][0]) for entry in page["clips"]] == [("a", "0.000"), ("b", "1.000")]
    assert page["facts"] == {
        "checkpoint": "a.pt", "trained": "3 iterations", "sigma": 0.25, "denoiser strength": 0.5,
        "device": "cpu, O0, int8" if int8 else "cpu, O0",
    }  # fmt: skip
    assert (page["path"], page["title"]) == (tmp_path / "index.html", "WaveGlow evaluation")
    assert (page["columns"], page["overall"]) == (evaluation.COLUMNS, clip("overall").figures())
    assert page["curve"] == ("curve of", vocoder.training) and page["note"] == evaluation.NOTE


def test_all_clips_are_in_the_table_and_the_first_twenty_can_be_heard(vocoder, tmp_path, monkeypatch):
    mel = torch.full((6, 9), -5.0)
    inputs = [tmp_path / f"{i}.pt" for i in range(22)]
    for path in inputs:
        torch.save(mel, path)
        write_wav(tmp_path / f"{path.stem}_synthesis.wav", np.zeros(2000), RATE)
    page = page_of(monkeypatch, vocoder, tmp_path, inputs)
    assert [entry["name"] for entry in page["clips"]] == [str(i) for i in range(22)]
    assert [bool(entry["sounds"]) for entry in page["clips"]] == [True] * 20 + [False] * 2
    assert page["note"] == evaluation.NOTE + " The first 20 clips are below."


def test_what_the_program_is_told_reaches_the_results(path, tmp_path, monkeypatch):
    """And evaluation.json says with which settings the figures were made."""
    torch.save(torch.full((6, 3), -3.0), tmp_path / "a.pt")
    options = ["--sigma=0.5", "--denoiser_strength=0.25", "--seed=7"]
    found, results = evaluate(monkeypatch, path, tmp_path / "out", [tmp_path / "a.pt"], *options)
    expected = {"checkpoint": str(path), "sigma": 0.5, "denoiser_strength": 0.25, "seed": 7, "int8": False}
    assert {name: found[name] for name in found if name not in ("overall", "clips")} == expected
    names = ("network", "rank_size", "batch_size", "case")
    assert tuple(results[name] for name in names) == ("WaveGlow_for_PyTorch", 1, 4, "acc")  # 4: the training's
    options = ["--batch_size=9", "--case=perf"]
    _, results = evaluate(monkeypatch, path, tmp_path / "out", [tmp_path / "a.pt"], *options)
    assert (results["batch_size"], results["case"]) == (9, "perf")
