"""The figures of Tacotron2's evaluation: what each is of a clip, and how they become those of all clips."""

import json
import math
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from clip_figures import measured
from toy_speech import FRAMES, make_models

from common.evaluation.metrics import mel_cepstral_distortion
from conftest import RATE
from tacotron2 import evaluation, infer
from tacotron2.evaluation import summarize


def test_lengths_are_added_up_measures_averaged_and_time_is_by_length():
    long = measured(
        seconds=3.0, loss=3.0, mel_l1=1.5, mel_cepstral_distortion=6.0, frames=300, spoken_seconds=4.0, stopped=0.0,
        diagonality=0.4, coverage=0.5, real_time_factor=0.5,
    )  # fmt: skip
    expected = measured(
        name="overall", seconds=4.0, loss=2.0, mel_l1=1.0, mel_cepstral_distortion=5.0, frames=400, spoken_seconds=5.0,
        stopped=0.5, diagonality=0.6, coverage=0.7, real_time_factor=(2.0 * 1 + 0.5 * 4) / 5,
    )  # fmt: skip
    found = vars(summarize((measured(), long)))
    assert found.pop("name") == "overall"
    assert found == pytest.approx({name: value for name, value in vars(expected).items() if name != "name"})


def test_what_is_no_number_is_left_out_of_a_mean():
    assert summarize((measured(mel_l1=math.nan), measured(mel_l1=2.0))).mel_l1 == 2.0
    assert math.isnan(summarize((measured(mel_l1=math.nan),)).mel_l1)


def louder(mel):
    """Twice as loud in every other band."""
    return mel + math.log(2) * (torch.arange(len(mel)) % 2)[:, None]


def test_the_distances_are_those_of_the_prediction_from_the_recording(corpus, tmp_path, monkeypatch):
    """The rest is of the free speech, by a clock that an hour passes on whenever it is looked at."""
    given = []

    def predict(clip, mel, synthesizer, seed):
        given.append(mel)
        return evaluation.Predicted(7.0, louder(mel), torch.zeros(1), torch.zeros(1, 1))

    monkeypatch.setattr(evaluation, "predict", predict)
    monkeypatch.setattr(evaluation, "draw_pictures", lambda *pictures: {})
    monkeypatch.setattr(infer, "start_log", lambda args: None)
    clock = SimpleNamespace(perf_counter=count(step=3600.0).__next__)
    for module in (infer, evaluation):
        monkeypatch.setattr(module, "time", clock)
    model = make_models(tmp_path)[0].partition("=")[2]
    options = [f"--pth_path={model}", f"--output_directory={tmp_path / 'out'}", f"--data_path={corpus}"]
    monkeypatch.setattr(sys, "argv", ["infer", "--device=cpu", *options])
    infer.main()
    (clip,) = json.loads((tmp_path / "out/evaluation.json").read_text())["clips"]
    assert clip["loss"] == 7.0
    assert clip["mel_l1"] == pytest.approx(math.log(2) / 2)
    assert clip["mel_cepstral_distortion"] == pytest.approx(mel_cepstral_distortion(given[0], louder(given[0])))
    assert clip["mel_cepstral_distortion"] > 1
    assert clip["spoken_seconds"] == pytest.approx(FRAMES * 256 / RATE)
    assert clip["real_time_factor"] == pytest.approx(3600 / clip["spoken_seconds"])
