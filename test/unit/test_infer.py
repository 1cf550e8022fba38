"""Synthesis and evaluation: chunks, denoiser, measures, inputs, the page."""

import base64
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from common.audio import write_wav
from common.checkpoints import native
from common.config_reading import load_config
from common.device import pick_device
from common.evaluation import pictures, runner
from common.evaluation.metrics import mel_cepstral_distortion, mel_l1
from common.layers.int8 import why_no_int8
from common.program import UserError
from conftest import RATE, write_config
from waveglow import infer
from waveglow.config import Config, build_model
from waveglow.denoiser import Denoiser
from waveglow.model import WaveGlow
from waveglow.vocoder import Vocoder

CPU = pick_device("cpu")


@pytest.fixture
def trained(config, tmp_path, request):
    """A checkpoint whose flows do something; its parameter is the hop length."""
    config[1]["data_config"]["hop_length"] = getattr(request, "param", 256)
    write_config(config[0], config[1])
    torch.manual_seed(0)
    model = build_model(load_config(config[0], Config))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.03)
    progress = {"losses": [1.0, 0.5, 0.2], "validation_losses": [(0, 1.0), (3, 0.1)], "first_iteration": 0}
    progress |= {"iteration": 3, "finetuned_from": ""}
    path = tmp_path / "waveglow_3"
    native.save(path, {"model": model.state_dict(), "config": config[1], "iteration": 3, "progress": progress})
    return path


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("chunk_frames", [9, 17, 64, 99])
@pytest.mark.parametrize("trained", [256, 320, 64], indirect=True)
def test_chunks_give_what_one_piece_gives(trained, strength, chunk_frames):
    mel = torch.randn(6, 100)
    vocoder = Vocoder(trained, CPU, chunk_frames=10_000)
    whole = vocoder.synthesize(mel, 0.8, strength)
    parts = Vocoder(trained, CPU, chunk_frames=chunk_frames).synthesize(mel, 0.8, strength)
    assert whole.shape == (100 * vocoder.model.hop_length,)
    assert whole.std() > 0.1
    assert (whole - parts).abs().max() < 2e-6


def test_chunks_without_context_would_differ(trained):
    """The test above can fail."""
    mel = torch.randn(6, 100)
    vocoder = Vocoder(trained, CPU, chunk_frames=10_000)
    half = vocoder.synthesize(mel[:, :50], 0.0)
    assert (vocoder.synthesize(mel, 0.0)[: 50 * 256] - half).abs().max() > 1e-3


def test_only_a_chunk_at_a_time_is_in_memory(trained, monkeypatch):
    lengths = []
    original = WaveGlow.infer
    spy = lambda self, mel, *rest: lengths.append(mel.shape[2]) or original(self, mel, *rest)  # noqa: E731
    monkeypatch.setattr(WaveGlow, "infer", spy)
    vocoder = Vocoder(trained, CPU, chunk_frames=20)
    vocoder.synthesize(torch.randn(6, 300))
    assert len(lengths) == 15
    assert max(lengths) <= 20 + 2 * (vocoder.model.context_frames + 8)


def test_the_seed_decides_the_noise(trained):
    vocoder = Vocoder(trained, CPU)
    mel = torch.randn(6, 5)
    assert torch.equal(vocoder.synthesize(mel, seed=1), vocoder.synthesize(mel, seed=1))
    assert not torch.equal(vocoder.synthesize(mel, seed=1), vocoder.synthesize(mel, seed=2))


def test_denoiser_takes_the_bias_away(trained):
    model = Vocoder(trained, CPU).model
    bias = model.infer(torch.zeros(1, 6, 88), sigma=0.0)
    denoiser = Denoiser(bias)
    assert (denoiser(bias, 0.0) - bias).abs().max() < 3e-6
    assert denoiser(bias, 1.0)[:, 2048:-2048].norm() < 0.2 * bias[:, 2048:-2048].norm()
    noise = torch.randn(1, 300)
    assert (denoiser(noise, 0.0) - noise).abs().max() < 1e-5


def test_measures():
    a, b = torch.randn(80, 30), torch.randn(80, 40)
    assert mel_l1(a, a) == mel_cepstral_distortion(a, a) == 0
    assert mel_l1(a, b) == mel_l1(b, a) == pytest.approx((a - b[:, :30]).abs().mean().item())
    # Loudness alone is no distortion; one cosine of amplitude 1 is sqrt(2) * 10 / ln 10 dB.
    assert mel_cepstral_distortion(a, a + 1) == pytest.approx(0, abs=1e-6)
    cosine = torch.cos(torch.pi * 3 * (torch.arange(80) + 0.5) / 80)[:, None]
    assert mel_cepstral_distortion(a, a + cosine) == pytest.approx(math.sqrt(2) * 10 / math.log(10), rel=5e-6)


def run_infer(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["infer", "--device=cpu", *map(str, options)])
    infer.main()


def test_evaluation_of_a_corpus(trained, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_infer(monkeypatch, f"--pth_path={trained}", f"--output_directory={out}", f"--data_path={corpus}")
    result = json.loads((out / "evaluation.json").read_text())
    assert [clip["name"] for clip in result["clips"]] == ["clip00"]
    info = soundfile.info(out / "clip00_synthesis.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (RATE, 1, "PCM_16", int(0.4 * RATE))
    for name in ("loss", "mel_l1", "mel_cepstral_distortion", "real_time_factor"):
        assert math.isfinite(result["overall"][name]), name
    html = (out / "index.html").read_text()
    assert html.count("data:audio/wav;base64,") == 2
    assert html.count("data:image/png;base64,") == 2
    # It needs nothing else: all sources are inside.
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(sources) == 4 and all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_mels_in_wavs_out(trained, tmp_path, monkeypatch, suffix):
    mel = torch.randn(6, 12) - 5
    path = tmp_path / f"some mel{suffix}"
    if suffix == ".pt":
        torch.save(mel, path)
    else:
        np.save(path, mel.numpy())
    run_infer(monkeypatch, f"--pth_path={trained}", f"--output_directory={tmp_path / 'out'}", path)
    assert soundfile.info(tmp_path / "out/some mel_synthesis.wav").frames == 12 * 256
    result = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert result["clips"][0]["loss"] is result["overall"]["loss"] is None
    assert result["clips"][0]["mel_l1"] > 0


def test_the_shortest_inputs(trained, tmp_path, monkeypatch):
    torch.save(torch.randn(6, 1) - 5, tmp_path / "a.pt")
    write_wav(tmp_path / "b.wav", np.full(7, 0.1), RATE)
    options = [f"--pth_path={trained}", f"--output_directory={tmp_path / 'out'}", "--denoiser_strength=0.1"]
    run_infer(monkeypatch, *options, tmp_path / "a.pt", tmp_path / "b.wav")
    assert soundfile.info(tmp_path / "out/a_synthesis.wav").frames == 256
    assert soundfile.info(tmp_path / "out/b_synthesis.wav").frames == 7


@pytest.mark.skipif(bool(why_no_int8(CPU)), reason="the processor has no VNNI")
@pytest.mark.parametrize("options", [[], ["--int8"]])
def test_int8_is_said(trained, tmp_path, monkeypatch, options):
    torch.save(torch.randn(6, 3) - 5, tmp_path / "a.pt")
    run_infer(monkeypatch, f"--pth_path={trained}", f"--output_directory={tmp_path}", *options, tmp_path / "a.pt")
    assert json.loads((tmp_path / "evaluation.json").read_text())["int8"] == bool(options)
    assert ("cpu, O0, int8" in (tmp_path / "index.html").read_text()) == bool(options)


def test_the_page_plays_what_was_synthesized_earlier(trained, tmp_path, monkeypatch):
    """Of the clips that an earlier evaluation had, under its folder's name."""
    torch.save(torch.randn(6, 3) - 5, tmp_path / "a.pt")
    torch.save(torch.randn(6, 3) - 5, tmp_path / "b.pt")
    options = [f"--pth_path={trained}", f"--output_directory={tmp_path / 'eval_first'}"]
    run_infer(monkeypatch, *options, tmp_path / "a.pt")
    options = [f"--pth_path={trained}", f"--output_directory={tmp_path / 'eval_last'}", "--seed=2"]
    run_infer(monkeypatch, *options, f"--earlier={tmp_path / 'eval_first'}", tmp_path / "a.pt", tmp_path / "b.pt")
    html = (tmp_path / "eval_last" / "index.html").read_text()
    assert html.count("<figcaption>eval_first</figcaption>") == 1
    assert html.count("<figcaption>synthesized</figcaption>") == 2
    earlier = base64.b64encode((tmp_path / "eval_first" / "a_synthesis.wav").read_bytes()).decode()
    assert earlier[100:] in html
    with pytest.raises(SystemExit) as end:
        run_infer(monkeypatch, *options, f"--earlier={tmp_path / 'nowhere'}", tmp_path / "a.pt")
    assert end.value.code == 2


def test_inputs_that_are_refused(trained, tmp_path, monkeypatch):
    options = [f"--pth_path={trained}", f"--output_directory={tmp_path / 'out'}"]
    torch.save(torch.randn(80, 4), tmp_path / "bands.pt")
    torch.save({"a": 1}, tmp_path / "dict.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save(torch.rand(6, 4) / 100 + torch.eye(6, 4), tmp_path / "amplitudes.pt")
    write_wav(tmp_path / "x/same.wav", np.zeros(9000), RATE)
    write_wav(tmp_path / "y/same.wav", np.zeros(9000), RATE)
    (tmp_path / "empty").mkdir()
    cases = {
        (tmp_path / "bands.pt",): r"must hold a mel spectrogram \[6, T\]",
        (tmp_path / "dict.pt",): "holds no mel spectrogram but dict",
        (tmp_path / "text.pt",): "not readable as a mel",
        (tmp_path / "amplitudes.pt",): r"^/\S*/amplitudes\.pt: its values, .* look like amplitudes or powers",
        (tmp_path / "missing.npy",): "no file",
        (tmp_path / "missing.wav",): "no such file",
        (tmp_path / "x", tmp_path / "y"): "would both become same_synthesis.wav",
        (tmp_path / "empty",): "no wavs in",
    }
    for inputs, message in cases.items():
        with pytest.raises(UserError, match=message):
            run_infer(monkeypatch, *options, *inputs)


@pytest.mark.parametrize(
    "option", ["--sigma=-1", "--sigma=nan", "--chunk_frames=0", "--seed=-3", "--denoiser_strength=-1"]
)
def test_options_out_of_range_end_with_code_2(trained, monkeypatch, option, capsys):
    with pytest.raises(SystemExit) as end:
        run_infer(monkeypatch, f"--pth_path={trained}", "--output_directory=x", option, "a.wav")
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_anything_to_synthesize_the_program_ends_with_code_2(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_infer(monkeypatch, "--pth_path=nowhere", f"--output_directory={tmp_path / 'out'}")
    assert end.value.code == 2 and not (tmp_path / "out").exists()
    assert "name wavs or mels, or give --data_path" in capsys.readouterr().err


def test_of_a_folder_the_wavs_are_inputs_and_files_are_what_they_are(corpus, tmp_path):
    (corpus / "wavs/._clip00.wav").write_bytes(b"macOS")
    (corpus / "wavs/notes.txt").write_text("no audio")
    (corpus / "wavs/clip02.wav").rename(corpus / "wavs/clip02.WAV")
    names = [f"clip{i:02}.{'WAV' if i == 2 else 'wav'}" for i in range(13)]
    given = [str(tmp_path / "b.pt"), str(corpus / "wavs"), "a.wav"]
    assert infer.find_inputs(given) == [tmp_path / "b.pt", *(corpus / "wavs" / name for name in names), Path("a.wav")]


def test_plots_have_their_content():
    mels = {"original": torch.randn(80, 50), "synthesized": torch.randn(80, 50)}
    axes = pictures.plot_spectrograms(mels).axes
    assert [axis.get_title(loc="left") for axis in axes[:2]] == list(mels)
    both = torch.cat(list(mels.values()))
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim() == (both.min(), both.max())
    axis = pictures.plot_losses([3.0, 2.0, 1.0], [(10, 4.0), (13, 1.5)], iteration=13).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [11, 12, 13]
    assert list(axis.lines[1].get_ydata()) == [4.0, 1.5]


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_a_recording_synthesized_perfectly_or_at_half_its_loudness(trained, corpus, tmp_path, monkeypatch, gain):
    """The distances are those of what was synthesized from the recording."""
    recording = torch.from_numpy(soundfile.read(corpus / "wavs/clip00.wav", dtype="float32")[0])
    monkeypatch.setattr(Vocoder, "synthesize", lambda self, mel, *options: gain * recording)
    run_infer(monkeypatch, f"--pth_path={trained}", f"--output_directory={tmp_path}", f"--data_path={corpus}")
    (clip,) = json.loads((tmp_path / "evaluation.json").read_text())["clips"]
    assert clip["mel_l1"] == pytest.approx(-math.log(gain), rel=5e-6)
    assert clip["mel_cepstral_distortion"] == pytest.approx(0, abs=3e-6)


def test_each_process_evaluates_its_share_and_gets_all_results(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    everyones = {number: f"of {letter}" for number, letter in enumerate("abcdefg")}
    monkeypatch.setattr(runner.distributed, "gather_objects", lambda own: [everyones | own])
    done = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        results = runner.shared_out("abcdefg", lambda letter: done.append(letter) or f"of {letter}")
        assert results == list(everyones.values())
    assert sorted(done) == list("abcdefg")
