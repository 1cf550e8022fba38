"""Evaluation of Tacotron2: figures, files, the page; one process or several."""

import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch
from toy_speech import FRAMES, make_checkpoint, make_models

from common.evaluation import runner
from common.evaluation.pictures import plot_spectrograms
from common.program import UserError
from common.result_files import Results
from conftest import RATE, make_corpus, run_script, toy_tacotron2_config
from tacotron2 import evaluation, infer
from tacotron2.synthesizer import Synthesizer
from waveglow import infer as waveglow_infer

CLIPS = 30
HELD_BACK = ["clip00", "clip01", "clip02"]


@pytest.fixture
def models(tmp_path):
    return [option.partition("=")[2] for option in make_models(tmp_path)]


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus", clips=CLIPS)


def run_infer(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["infer", "--device=cpu", *map(str, options)])
    monkeypatch.setattr(infer, "start_log", lambda args: None)
    infer.main()


def evaluate(monkeypatch, output, *options):
    run_infer(monkeypatch, f"--output_directory={output}", *options)
    return json.loads((output / "evaluation.json").read_text())


def without_time(figures):
    return {name: value for name, value in figures.items() if name not in ("name", "real_time_factor")}


def test_evaluation_of_a_corpus(models, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    result = evaluate(monkeypatch, out, f"--pth_path={models[0]}", f"--data_path={corpus}")
    assert [clip["name"] for clip in result["clips"]] == HELD_BACK
    for clip in result["clips"]:
        assert clip["seconds"] == pytest.approx(0.4)
        assert (clip["frames"], clip["stopped"]) == (FRAMES, 0.0)
        assert clip["spoken_seconds"] == pytest.approx(FRAMES * 256 / RATE)
        for name in ("loss", "mel_l1", "mel_cepstral_distortion", "real_time_factor"):
            assert math.isfinite(clip[name]) and clip[name] > 0, name
        assert soundfile.info(out / f"{clip['name']}_synthesis.wav").frames == FRAMES * 256
        assert np.load(out / f"{clip['name']}_mel.npy").shape == (6, FRAMES)
    overall = result["overall"]
    assert overall["seconds"] == pytest.approx(1.2)
    assert overall["frames"] == 3 * FRAMES
    assert overall["loss"] == pytest.approx(sum(clip["loss"] for clip in result["clips"]) / 3)


def test_the_page(models, corpus, tmp_path, monkeypatch):
    evaluate(monkeypatch, tmp_path / "out", f"--pth_path={models[0]}", f"--data_path={corpus}")
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:audio/wav;base64,") == 2 * 3
    assert page.count("data:image/png;base64,") == 1 + 4 * 3
    assert page.count("<p>A tone.</p>") == 3
    assert "2 iterations" in page
    # It needs nothing else: all sources are inside.
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 2 * 3 + 1 + 4 * 3 and all(source.startswith("data:") for source in sources)


def test_figures_are_those_of_the_training(models, corpus, tmp_path, monkeypatch):
    """The loss of a clip is that of its one-clip batch, and the distances those of its prediction."""
    from common.audio import read_wav
    from common.device import pick_device
    from common.evaluation.metrics import mel_l1
    from tacotron2.loss import Tacotron2Loss

    result = evaluate(monkeypatch, tmp_path / "out", f"--pth_path={models[0]}", f"--data_path={corpus}", "--seed=3")
    synthesizer = Synthesizer(models[0], pick_device("cpu"))
    mel = synthesizer.mel(torch.from_numpy(read_wav(corpus / "wavs/clip00.wav", RATE))[None])
    text = torch.tensor([synthesizer.symbols("A tone.")])
    inputs = (text, torch.tensor([text.shape[1]]), mel, torch.tensor([mel.shape[2]]))
    torch.manual_seed(3)
    with torch.no_grad():
        output = synthesizer.model(*inputs)
    clip = result["clips"][0]
    assert clip["loss"] == pytest.approx(Tacotron2Loss()(output, inputs[1], *inputs[2:]).item(), rel=1e-5)
    assert clip["mel_l1"] == pytest.approx(mel_l1(mel[0], output[1][0]), rel=1e-5)


def show_clips(monkeypatch, count):
    for module in (infer, evaluation, runner):
        monkeypatch.setattr(module, "CLIPS_ON_PAGE", count)


def test_only_the_first_clips_are_drawn(models, corpus, tmp_path, monkeypatch):
    show_clips(monkeypatch, 1)
    result = evaluate(monkeypatch, tmp_path / "out", f"--pth_path={models[0]}", f"--data_path={corpus}")
    assert len(result["clips"]) == 3
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("data:audio/wav;base64,") == 2
    assert page.count("data:image/png;base64,") == 1 + 4
    assert page.count("<p>A tone.</p>") == 1
    assert "The first 1 clips are below." in page


def test_the_result_says_how_fast_it_was(models, corpus, tmp_path, monkeypatch):
    """In clips, and in samples of what was spoken, which is not as long as the recordings; each clip at one try."""
    written, tries = [], []
    infer_of_model = Synthesizer.infer
    monkeypatch.setattr(Synthesizer, "infer", lambda self, *given: tries.append(given) or infer_of_model(self, *given))
    monkeypatch.setattr(Results, "write", lambda self, args: written.append(self))
    show_clips(monkeypatch, len(HELD_BACK))
    result = evaluate(
        monkeypatch, tmp_path / "out", f"--pth_path={models[0]}", f"--data_path={corpus}", "--batch_size=7"
    )
    (figures,) = written
    assert (figures.network, figures.rank_size, figures.batch_size) == ("Tacotron2_for_PyTorch", 1, 7)
    assert figures.losses == [result["overall"]["loss"]]
    assert figures.iteration_seconds * figures.fps == pytest.approx(1)
    assert figures.samples_per_second / figures.fps == pytest.approx(FRAMES * 256)
    assert len(tries) == len(HELD_BACK)
    assert result["seed"] == 1234 and result["checkpoint"] == models[0]
    busy = sum(clip["real_time_factor"] * clip["spoken_seconds"] for clip in result["clips"])
    assert 0 < busy < len(HELD_BACK) / figures.fps
    assert "clips are below" not in (tmp_path / "out/index.html").read_text()  # all are


def test_held_back_clips_that_cannot_be_used_are_named_or_left_out(models, corpus, tmp_path, monkeypatch):
    soundfile.write(corpus / "wavs/clip01.wav", np.zeros(9000), RATE)
    options = [f"--pth_path={models[0]}", f"--data_path={corpus}"]
    with pytest.raises(UserError, match=r"1 of 3 clips cannot be used: .*clip01\.wav is silent"):
        evaluate(monkeypatch, tmp_path / "out", *options)
    result = evaluate(monkeypatch, tmp_path / "out", *options, "--on_bad_clip=skip")
    assert [clip["name"] for clip in result["clips"]] == ["clip00", "clip02"]


def test_all_clips_as_one():
    """Lengths add up, measures are averaged, the time is that of a second of speech; the share that ended by itself."""
    one = evaluation.ClipFigures("a", 1.0, 2.0, 0.5, 6.0, 100, 3.0, 1.0, 0.9, 1.0, 0.1)
    other = evaluation.ClipFigures("b", 2.0, 4.0, 1.5, 8.0, 50, 1.0, 0.0, 0.5, 0.6, 0.5)
    overall = evaluation.summarize((one, other, other))
    assert overall.figures() == ["5.000", "3.333", "1.167", "7.333", "5.000", "33%", "0.633", "0.733", "0.260"]
    assert (overall.name, overall.frames) == ("overall", 200)
    assert [each.figures()[5] for each in (one, other)] == ["yes", "no"]
    said = evaluation.describe(one)
    assert said.startswith("recorded (s) 1.000, loss 2.000, mel L1 0.500, MCD (dB) 6.000, spoken (s)")


@pytest.mark.slow
def test_waveglow_s_program_takes_the_mels(models, corpus, tmp_path, monkeypatch):
    evaluate(monkeypatch, tmp_path / "out", f"--pth_path={models[0]}", f"--data_path={corpus}")
    mels = sorted((tmp_path / "out").glob("*_mel.npy"))
    arguments = [f"--pth_path={models[1]}", f"--output_directory={tmp_path / 'again'}", *mels]
    monkeypatch.setattr(sys, "argv", ["infer", "--device=cpu", *map(str, arguments)])
    waveglow_infer.main()
    for name in HELD_BACK:
        assert soundfile.info(tmp_path / f"again/{name}_mel_synthesis.wav").frames == FRAMES * 256


@pytest.mark.slow
def test_by_the_script_with_two_processes(checkout, models, corpus, tmp_path, monkeypatch):
    alone = evaluate(monkeypatch, tmp_path / "out", f"--pth_path={models[0]}", f"--data_path={corpus}")
    options = [f"--data_path={corpus}", f"--pth_path={models[0]}", f"--output_directory={tmp_path}", "--device=cpu"]
    done = run_script(checkout, "train_eval_8p.sh", "--network=Tacotron2", "--nproc=2", *options)
    assert done.returncode == 0, done.stderr
    shared_out = json.loads((tmp_path / "eval_tacotron2_2/evaluation.json").read_text())
    both = ([*each["clips"], each["overall"]] for each in (alone, shared_out))
    for one, other in zip(*both, strict=True):
        assert one["name"] == other["name"]
        assert without_time(one) == pytest.approx(without_time(other), rel=1e-4)
    lines = (checkout / "test/output/0/Tacotron2_for_PyTorch_bs4_2p_acc.log").read_text().splitlines()
    result = dict(line.split(" = ") for line in lines)
    assert (result["Network"], result["RankSize"]) == ("Tacotron2_for_PyTorch", "2")
    assert float(result["TrainAccuracy"]) == pytest.approx(shared_out["overall"]["loss"])
    assert float(result["ActualFPS"]) > 0


def test_what_is_refused(models, corpus, tmp_path, monkeypatch):
    options = [f"--output_directory={tmp_path / 'out'}", f"--data_path={corpus}"]
    with pytest.raises(UserError, match="is a checkpoint of WaveGlow, and one of Tacotron2 is needed here"):
        run_infer(monkeypatch, *options, f"--pth_path={models[1]}")
    with pytest.raises(UserError, match="no data: give --data_path"):
        run_infer(monkeypatch, options[0], f"--pth_path={models[0]}")
    config = toy_tacotron2_config() | {"data_config": {"sampling_rate": 16000, "mel_fmax": 8000.0}}
    make_checkpoint(tmp_path / "slow", config)
    with pytest.raises(UserError, match=r"clip00.wav has 22050 Hz .* must have 16000 Hz"):
        run_infer(monkeypatch, *options, f"--pth_path={tmp_path / 'slow'}")


def test_clips_of_one_name(corpus, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    shutil.copy(corpus / "wavs/clip00.wav", tmp_path / "other/clip00.wav")
    lines = [f"{folder / 'clip00.wav'}|A tone.\n" for folder in (corpus / "wavs", tmp_path / "other")]
    (tmp_path / "files.txt").write_text("".join(lines))
    config = toy_tacotron2_config()
    config["data_config"] = {name: str(tmp_path / "files.txt") for name in ("training_files", "validation_files")}
    make_checkpoint(tmp_path / "listed", config)
    with pytest.raises(UserError, match=r"would both become clip00_synthesis.wav: rename one"):
        run_infer(monkeypatch, f"--pth_path={tmp_path / 'listed'}", f"--output_directory={tmp_path / 'out'}")


@pytest.mark.parametrize("option", ["--seed=-3", "--nonsense"])
def test_options_out_of_range_end_with_code_2(models, monkeypatch, option, capsys):
    with pytest.raises(SystemExit) as end:
        run_infer(monkeypatch, f"--pth_path={models[0]}", "--output_directory=x", option)
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("lengths", [(50, 30), (30, 50)])
def test_spectrograms_of_two_lengths_are_shown_whole(lengths):
    figure = plot_spectrograms({str(i): torch.randn(6, length) for i, length in enumerate(lengths)})
    assert [axis.get_xlim() for axis in figure.axes[:2]] == [(-0.5, 49.5)] * 2
