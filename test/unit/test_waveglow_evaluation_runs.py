"""A run of WaveGlow's evaluation: of any inputs it makes wavs, figures and a page; what is no input is refused."""

import base64
import json
import math
import re
import sys

import numpy as np
import pytest
import soundfile
import torch

from common.audio import write_wav
from common.checkpoints import native
from common.config_reading import load_config
from common.layers.int8 import why_no_int8
from common.program import UserError
from conftest import RATE
from runs import CPU
from waveglow import infer
from waveglow.config import Config, build_model
from waveglow.vocoder import Vocoder


@pytest.fixture
def trained(config, tmp_path):
    """A checkpoint whose flows do something."""
    torch.manual_seed(0)
    model = build_model(load_config(config[0], Config))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.03)
    progress = {"losses": [1.0, 0.5, 0.2], "validation_losses": [(0, 1.0), (3, 0.1)], "first_iteration": 0}
    progress |= {"iteration": 3, "finetuned_from": ""}
    path = tmp_path / "waveglow_3"
    native.save(path, {"model": model.state_dict(), "config": config[1], "iteration": 3, "progress": progress})
    return path


def run_infer(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["infer", "--device=cpu", *map(str, options)])
    infer.main()


def test_the_held_back_clips_of_a_corpus_become_wavs_figures_and_a_page_that_needs_nothing_else(
    trained, corpus, tmp_path, monkeypatch
):
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
def test_a_mel_becomes_a_wav_of_its_name_and_has_no_loss(trained, tmp_path, monkeypatch, suffix):
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


def test_the_shortest_inputs_become_audio_of_their_length(trained, tmp_path, monkeypatch):
    torch.save(torch.randn(6, 1) - 5, tmp_path / "a.pt")
    write_wav(tmp_path / "b.wav", np.full(7, 0.1), RATE)
    options = [f"--pth_path={trained}", f"--output_directory={tmp_path / 'out'}", "--denoiser_strength=0.1"]
    run_infer(monkeypatch, *options, tmp_path / "a.pt", tmp_path / "b.wav")
    assert soundfile.info(tmp_path / "out/a_synthesis.wav").frames == 256
    assert soundfile.info(tmp_path / "out/b_synthesis.wav").frames == 7


@pytest.mark.skipif(bool(why_no_int8(CPU)), reason="the processor has no VNNI")
@pytest.mark.parametrize("options", [[], ["--int8"]])
def test_results_and_page_say_whether_int8_was_used(trained, tmp_path, monkeypatch, options):
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


def test_what_is_no_recording_or_mel_is_refused_in_one_line(trained, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_distances_are_from_the_recording_that_was_synthesized(trained, corpus, tmp_path, monkeypatch, gain):
    """None if that is perfect; half its loudness is a known one."""
    recording = torch.from_numpy(soundfile.read(corpus / "wavs/clip00.wav", dtype="float32")[0])
    monkeypatch.setattr(Vocoder, "synthesize", lambda self, mel, *options: gain * recording)
    run_infer(monkeypatch, f"--pth_path={trained}", f"--output_directory={tmp_path}", f"--data_path={corpus}")
    (clip,) = json.loads((tmp_path / "evaluation.json").read_text())["clips"]
    assert clip["mel_l1"] == pytest.approx(-math.log(gain), rel=5e-6)
    assert clip["mel_cepstral_distortion"] == pytest.approx(0, abs=3e-6)
