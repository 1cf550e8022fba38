"""Tacotron2's evaluation: its options, what of a clip is predicted and drawn, and what stands on its page."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from clip_figures import measured
from toy_speech import make_checkpoint

from common.audio import write_wav
from common.evaluation import page, pictures
from conftest import RATE
from runs import CPU
from tacotron2 import evaluation, infer
from tacotron2.alignment import alignment_quality
from tacotron2.data import Clip
from tacotron2.evaluation import Predicted, draw_pictures, predict, write_page
from tacotron2.loss import Tacotron2Loss
from tacotron2.model import Utterance
from tacotron2.synthesizer import Synthesizer

NEEDED = ["--pth_path=p", "--output_directory=o"]


def test_options_that_are_not_given():
    args = infer.read_arguments(NEEDED)
    assert (args.pth_path, args.output_directory, args.seed, args.amp) == ("p", "o", 1234, None)
    assert (args.on_bad_clip, args.teacher_forced, args.training_files, args.batch_size) == ("stop", False, "", None)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (["--seed=0"], "seed", 0),
        ([f"--seed={2**63 - 1}"], "seed", 2**63 - 1),
        (["--batch_size=1"], "batch_size", 1),
        (["--amp=O2"], "amp", "O2"),
        (["--on_bad_clip=skip"], "on_bad_clip", "skip"),
        (["--teacher_forced", "--training_files=f"], "training_files", "f"),
        (["--teacher_forced", "--data_path=d"], "data_path", "d"),
    ],
)
def test_options_that_are_taken(options, name, value):
    assert getattr(infer.read_arguments([*NEEDED, *options]), name) == value


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed=-1"], "--seed must be at least 0 and below 2**63"),
        ([f"--seed={2**63}"], "--seed must be at least 0 and below 2**63"),
        (["--batch_size=0"], "--batch_size must be at least 1"),
        (["--amp=O3"], "--amp"),
        (["--on_bad_clip=keep"], "--on_bad_clip"),
        (["--training_files=f"], "--training_files belongs to --teacher_forced, in place of --data_path"),
        (["--teacher_forced", "--training_files=f", "--data_path=d"], "in place of --data_path"),
    ],
)
def test_options_that_are_refused(capsys, options, said):
    with pytest.raises(SystemExit) as end:
        infer.read_arguments([*NEEDED, *options])
    assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(("options", "speaks"), [(["--teacher_forced"], False), ([], True)])
def test_what_is_asked_for_is_passed_on(monkeypatch, tmp_path, options, speaks):
    did = {}

    def synthesizer(*given, **hints):
        did["synthesizer"] = given, hints
        return SimpleNamespace(mel="mel", model="model")

    def stop(*given):
        did["held back"] = given
        raise KeyboardInterrupt

    output = tmp_path / "out"
    monkeypatch.setattr(infer, "start_log", lambda args: None)
    monkeypatch.setattr(infer, "pick_device", lambda *given: given)
    monkeypatch.setattr(infer, "read_hints", lambda args, configs: "hints")
    monkeypatch.setattr(infer, "Synthesizer", synthesizer)
    monkeypatch.setattr(infer, "hold_folder", lambda folder, option: did.update(held=folder))
    monkeypatch.setattr(infer, "facts_of_evaluation", lambda args, model, clips: (args.amp, model, [*clips]))
    monkeypatch.setattr(infer.distributed, "agree", lambda facts: did.setdefault("agreed", []).append(facts))
    monkeypatch.setattr(infer, "GriffinLim", lambda mel: mel)
    monkeypatch.setattr(infer, "predict_corpus", lambda args, synthesizer, folder: did.update(predicted=folder))
    monkeypatch.setattr(infer, "find_held_back", stop)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "infer",
            "--pth_path=p",
            f"--output_directory={output}",
            "--amp=O1",
            "--device=cpu",
            "--device_id=3",
            *options,
        ],
    )
    if speaks:
        with pytest.raises(KeyboardInterrupt):
            infer.main()
    else:
        infer.main()
    assert did["synthesizer"] == (("p", ("cpu", 3), "O1"), {"hints": "hints"})
    assert did["held"] == output and output.is_dir()
    assert did.get("predicted") == (None if speaks else output) and ("held back" in did) == speaks
    assert speaks or did["agreed"] == [("O1", "model", [])]


@pytest.mark.parametrize("frames_per_step", [1, 2])
def test_a_prediction_is_that_of_the_training(toy, tmp_path, frames_per_step):
    """With its guided attention in the loss, and the dropout that the seed draws."""
    toy["train_config"]["guided_attention"] = 3.0
    toy["tacotron2_config"]["n_frames_per_step"] = frames_per_step
    synthesizer = Synthesizer(make_checkpoint(tmp_path / "tacotron2_2", toy), CPU)
    mel = torch.rand(6, 9)
    predicted = predict(Clip(tmp_path / "a.wav", "A tone"), mel, synthesizer, 5)
    text = torch.tensor([synthesizer.symbols("A tone")])
    inputs = text, torch.tensor([text.shape[1]]), mel[None], torch.tensor([9])
    torch.manual_seed(5)
    with torch.no_grad():
        output = synthesizer.model(*inputs)
    assert predicted.loss == pytest.approx(Tacotron2Loss(3.0, frames_per_step)(output, *inputs[1:]).item())
    for ours, theirs in (
        (predicted.mel, output[1]),
        (predicted.gate, output[2].sigmoid()),
        (predicted.alignment, output[3]),
    ):
        assert torch.equal(ours, theirs[0])


@pytest.mark.parametrize("draw", [False, True])
def test_a_clip_is_spoken_once_by_the_seed_and_written(monkeypatch, tmp_path, draw):
    asked, audio = {}, torch.linspace(-0.5, 0.5, 1024)
    write_wav(tmp_path / "in/a.b.wav", torch.full((2205,), 0.25), RATE)
    alignment, recorded, drawn = torch.rand(4, 3), torch.rand(6, 9), {}
    spoken = Utterance(torch.rand(6, 4), 4, True, alignment, torch.rand(4), 0.8, 0.9)

    def speak(texts, seed, tries):
        asked["speak"] = texts, seed, tries
        yield SimpleNamespace(utterance=spoken)

    def predict(clip, mel, synthesizer, seed):
        asked["predict"] = clip, mel, seed
        return Predicted(7.0, recorded + 1, torch.rand(9), torch.rand(9, 3))

    synthesizer = SimpleNamespace(
        config=SimpleNamespace(data_config=SimpleNamespace(sampling_rate=RATE, hop_length=256)),
        mel=lambda audio: recorded[None] if audio.shape == (1, 2205) else None,
        speak=speak,
    )
    vocoder = SimpleNamespace(synthesize=lambda mel, seed: asked.update(vocoder=(mel, seed)) or audio)
    monkeypatch.setattr(evaluation, "predict", predict)
    monkeypatch.setattr(evaluation, "draw_pictures", lambda *given: drawn.update(given=given) or {"a": "picture"})
    clip = Clip(tmp_path / "in/a.b.wav", "Hello.")
    figures, images = evaluation.evaluate(clip, synthesizer, vocoder, 5, tmp_path, draw)
    assert asked["speak"] == (["Hello."], 5, 1)
    assert asked["predict"][::2] == (clip, 5) and torch.equal(asked["predict"][1], recorded)
    assert asked["vocoder"][0] is spoken.mel and asked["vocoder"][1] == 5
    written, rate = soundfile.read(tmp_path / "a.b_synthesis.wav", dtype="float32")
    assert rate == RATE and np.allclose(written, audio.numpy(), atol=1 / 32768)
    assert np.array_equal(np.load(tmp_path / "a.b_mel.npy"), spoken.mel.numpy())
    assert (figures.name, figures.seconds, figures.loss, figures.mel_l1) == ("a.b", 0.1, 7.0, pytest.approx(1.0))
    assert (figures.frames, figures.stopped, figures.diagonality, figures.coverage) == (4, 1.0, 0.8, 0.9)
    assert figures.spoken_seconds == 4 * 256 / RATE and figures.real_time_factor > 0
    assert images == ({"a": "picture"} if draw else {}) and bool(drawn) == draw
    if draw:
        assert torch.equal(drawn["given"][0], recorded) and drawn["given"][2] is spoken


def test_each_picture_is_of_what_its_caption_says(monkeypatch):
    alignment = torch.rand(4, 3)
    utterance = Utterance(torch.rand(6, 4), 4, True, alignment, torch.rand(4), *alignment_quality(alignment))
    predicted = Predicted(1.0, torch.rand(6, 5), torch.rand(5), torch.rand(5, 3))
    for name in ("plot_spectrograms", "plot_alignment", "plot_gate"):
        monkeypatch.setattr(pictures, name, lambda what: what)
    monkeypatch.setattr(page, "as_png", lambda figure: figure)
    mel = torch.rand(6, 5)
    drawn = draw_pictures(mel, predicted, utterance)
    spectrograms = drawn.pop("mel spectrograms")
    assert list(spectrograms) == ["recorded", "predicted from the recording", "spoken freely"]
    for shown, expected in zip(spectrograms.values(), (mel, predicted.mel, utterance.mel), strict=True):
        assert shown is expected
    assert drawn.keys() == {
        "attention with the recording given", "attention in free speech", "the gate, with the recording given",
    }  # fmt: skip
    assert drawn["attention with the recording given"] is predicted.alignment
    assert drawn["attention in free speech"] is alignment
    assert drawn["the gate, with the recording given"] is predicted.gate


@pytest.mark.parametrize(("shown", "below"), [(1, " The first 20 clips are below."), (2, ""), (3, "")])
def test_what_stands_on_the_page(monkeypatch, tmp_path, shown, below):
    given = {}
    monkeypatch.setattr(evaluation, "CLIPS_ON_PAGE", shown)
    monkeypatch.setattr(evaluation, "clips_below", lambda count: below)
    monkeypatch.setattr(evaluation, "plot_training", lambda training: f"curve of {training}")
    monkeypatch.setattr(evaluation, "describe_training", lambda training: f"words of {training}")
    monkeypatch.setattr(page, "as_wav", lambda audio, rate: (len(audio), rate))
    monkeypatch.setattr(page, "write_page", lambda path, **values: given.update(values, path=path))
    clips = [Clip(tmp_path / f"in/{name}.wav", f"Text {name}.") for name in "ab"]
    for clip, length in zip(clips, (100, 200), strict=True):
        write_wav(clip.path, torch.zeros(length), RATE)
        write_wav(tmp_path / f"{clip.path.stem}_synthesis.wav", torch.zeros(2 * length), RATE)
    figures, overall = (measured(), measured(name="b", loss=2.0)), measured(name="overall", stopped=0.5)
    synthesizer = SimpleNamespace(
        config=SimpleNamespace(data_config=SimpleNamespace(sampling_rate=RATE)),
        training="the training",
        device=CPU,
        precision=SimpleNamespace(level="O1"),
    )
    images = {"a": "picture a"}, {}
    write_page(tmp_path, clips, figures, images, overall, synthesizer, SimpleNamespace(pth_path="the checkpoint"))
    entries = given.pop("clips")
    assert given == {
        "path": tmp_path / "index.html", "title": "Tacotron2 evaluation", "curve": "curve of the training",
        "facts": {
            "checkpoint": "the checkpoint", "trained": "words of the training", "sound by": "Griffin-Lim, a preview",
            "device": "cpu, O1",
        },
        "columns": evaluation.COLUMNS, "overall": overall.figures(), "note": evaluation.NOTE + below,
    }  # fmt: skip
    sounds = {"recorded": (100, RATE), "spoken": (200, RATE)}, {"recorded": (200, RATE), "spoken": (400, RATE)}
    expected = [
        {"name": each.name, "figures": each.figures(), "sounds": {}, "images": some}
        for each, some in zip(figures, images, strict=True)
    ]
    for entry, clip, sound in [*zip(expected, clips, sounds, strict=True)][:shown]:
        entry |= {"text": clip.text, "sounds": sound}
    assert entries == expected
