"""Tacotron2's mels of a whole corpus: in step with the recordings, the same however a run went."""

import argparse
import json
import logging
import os
import re
import sys
import threading

import numpy as np
import pytest
import soundfile
import torch
from toy_speech import make_checkpoint

from common.config_reading import from_dict
from common.folder_lock import LOCK
from common.program import UserError
from conftest import RATE, toy_tacotron2_config
from runs import CPU, in_processes
from tacotron2 import infer, teacher_forced
from tacotron2.config import Config, build_model
from tacotron2.synthesizer import LEAST_DIAGONALITY, Synthesizer
from tacotron2.teacher_forced import Measured

LENGTHS = [9000, 4000, 9600, 6000, 2500, 9001, 7000]
WORDS = ["one", "another", "a third clip", "four", "the fifth", "six", "the last of all"]


@pytest.fixture
def corpus(tmp_path):
    """Clips of several lengths; no length is a multiple of the hop's."""
    folder, rng = tmp_path / "corpus", np.random.default_rng(0)
    (folder / "wavs").mkdir(parents=True)
    for i, length in enumerate(LENGTHS):
        soundfile.write(folder / f"wavs/c{i}.wav", 0.1 * rng.standard_normal(length), RATE)
    (folder / "metadata.csv").write_text("".join(f"c{i}|{text}\n" for i, text in enumerate(WORDS)))
    return folder


@pytest.fixture(params=[1, 3])
def checkpoint(request, tmp_path):
    """Frames a step."""
    config = toy_tacotron2_config()
    config["tacotron2_config"]["n_frames_per_step"] = request.param
    return make_checkpoint(tmp_path / "tacotron2_2", config)


def run(monkeypatch, checkpoint, corpus, output, *options):
    arguments = [f"--pth_path={checkpoint}", f"--output_directory={output}", "--teacher_forced", "--device=cpu"]
    arguments += [f"--data_path={corpus}"] * bool(corpus)
    monkeypatch.setattr(sys, "argv", ["infer", *arguments, *options])
    monkeypatch.setattr(infer, "start_log", lambda args: None)
    infer.main()
    return {path.stem: np.load(path) for path in sorted(output.glob("*.npy"))}


def test_every_clip_has_a_mel_of_its_own_frames(checkpoint, corpus, tmp_path, monkeypatch):
    """Those that are held back, too; the last step of a clip may be short of frames."""
    mels = run(monkeypatch, checkpoint, corpus, tmp_path / "out", "--batch_size=3")
    assert {name: mel.shape for name, mel in mels.items()} == {
        f"c{i}": (6, length // 256 + 1) for i, length in enumerate(LENGTHS)
    }
    assert all(mel.dtype == np.float32 and np.isfinite(mel).all() for mel in mels.values())
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [LOCK]


def test_a_clip_is_predicted_in_a_batch_as_alone(checkpoint, corpus, tmp_path, monkeypatch):
    together = run(monkeypatch, checkpoint, corpus, tmp_path / "a", "--batch_size=7")
    alone = run(monkeypatch, checkpoint, corpus, tmp_path / "b", "--batch_size=1")
    assert all(np.allclose(together[name], alone[name], atol=1e-5) for name in alone)
    other = run(monkeypatch, checkpoint, corpus, tmp_path / "c", "--seed=3")
    assert not any(np.allclose(other[name], alone[name], atol=1e-3) for name in alone)


def test_a_frame_follows_from_those_before_it(toy):
    """What comes later in the recording changes no earlier frame of the decoder, and what is predicted is in place."""
    torch.manual_seed(0)
    model = build_model(from_dict(Config, toy)).eval()
    model.postnet.forward = lambda mel, padding=None: torch.zeros_like(mel)
    text, mel = torch.randint(1, 100, (1, 9)), torch.randn(1, 6, 20)
    changed = mel.clone()
    changed[:, :, 12] += 1
    one, other = (model.predict(text, torch.tensor([9]), m, torch.tensor([20]), [5])[0].mel for m in (mel, changed))
    differs = (one != other).any(dim=0)
    assert not differs[:13].any() and differs[13]


def test_a_stopped_run_goes_on_with_the_same_numbers(checkpoint, corpus, tmp_path, monkeypatch):
    whole = run(monkeypatch, checkpoint, corpus, tmp_path / "whole", "--batch_size=3")
    predict_batch, calls = teacher_forced.predict_batch, []

    def killed_in_the_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict_batch(*arguments)

    out = tmp_path / "out"
    monkeypatch.setattr(teacher_forced, "predict_batch", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, checkpoint, corpus, out, "--batch_size=3")
    assert len(list(out.glob("*.npy"))) == 3
    done = next(out.glob("*.npy"))
    before = done.stat().st_mtime_ns
    (out / "c2.npy").write_bytes(b"\x93NUMPY")  # cut off, as by another program
    resumed = run(monkeypatch, checkpoint, corpus, out, "--batch_size=3")
    assert len(calls) == 4 and done.stat().st_mtime_ns == before
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_clip_is_predicted_by_one_of_several_processes(toy, corpus, tmp_path, monkeypatch, count):
    """And each process knows what all of them have measured."""
    synthesizer = Synthesizer(make_checkpoint(tmp_path / "tacotron2_2", toy), CPU)
    out, predicted, reported = tmp_path / "out", [], []
    out.mkdir()
    (out / ".c1.npy.a.part").touch()
    args = argparse.Namespace(
        data_path=str(corpus), training_files="", on_bad_clip="stop", batch_size=2, seed=1, pth_path=""
    )

    def predict_batch(items, synthesizer, seed, output):
        names = [item["names"] for item in items]
        predicted.append((threading.get_ident(), names))
        return {name: Measured(1.0, 1.0, 1.0) for name in names}

    monkeypatch.setattr(teacher_forced, "predict_batch", predict_batch)
    monkeypatch.setattr(teacher_forced, "report", lambda measured, *rest: reported.append((sorted(measured), *rest)))
    in_processes(monkeypatch, count, lambda rank: teacher_forced.predict_corpus(args, synthesizer, out))
    names = [f"c{i}.wav" for i in range(7)]
    assert sorted(name for _, batch in predicted for name in batch) == names
    assert len({who for who, _ in predicted}) == count
    assert reported == [(names, 7, out)] * count
    assert not list(out.glob("*.part"))


def test_what_changed_is_made_again(checkpoint, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(monkeypatch, checkpoint, corpus, out, "--batch_size=1")

    def made_again(path):
        os.utime(path, (2e9, 2e9))
        for mel in out.glob("*.npy"):
            os.utime(mel, (1e9, 1e9)) if path.name == "metadata.csv" else os.utime(mel, (1.5e9, 1.5e9))
        run(monkeypatch, checkpoint, corpus, out, "--batch_size=1")
        again = [mel.stem for mel in sorted(out.glob("*.npy")) if mel.stat().st_mtime not in (1e9, 1.5e9)]
        os.utime(path, (1e9, 1e9))
        return again

    for path in [*corpus.glob("wavs/*"), corpus / "metadata.csv"]:
        os.utime(path, (1e9, 1e9))
    assert made_again(corpus / "wavs/c3.wav") == ["c3"]
    assert len(made_again(corpus / "metadata.csv")) == len(LENGTHS)


def test_mels_of_another_model_or_seed_are_not_mixed(checkpoint, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(monkeypatch, checkpoint, corpus, out)
    facts = json.loads((out / "teacher_forced.json").read_text())
    assert facts["seed"] == 1234 and facts["precision"] == "O0"
    with pytest.raises(UserError, match="made with seed 1234, now it is 5: name another folder"):
        run(monkeypatch, checkpoint, corpus, out, "--seed=5")
    config = toy_tacotron2_config()
    config["tacotron2_config"]["max_decoder_steps"] = 7
    torch.manual_seed(7)
    other = make_checkpoint(tmp_path / "tacotron2_3", config | {"data_config": {"dictionary": "cmudict"}})
    with pytest.raises(UserError, match=r"made with (weights|dictionary)"):
        run(monkeypatch, other, corpus, out)


def test_bad_clips_are_named_before_or_left_out(checkpoint, corpus, tmp_path, monkeypatch):
    soundfile.write(corpus / "wavs/c1.wav", np.zeros(9000), 8000)
    with pytest.raises(UserError, match=r"1 of 7 clips cannot be used: .*c1\.wav has 8000 Hz"):
        run(monkeypatch, checkpoint, corpus, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.npy"))
    assert len(run(monkeypatch, checkpoint, corpus, tmp_path / "out", "--on_bad_clip=skip")) == len(LENGTHS) - 1


def test_a_list_of_files(checkpoint, corpus, tmp_path, monkeypatch):
    """Also of clips that are elsewhere, but not two of one name."""
    lines = [f"{corpus}/wavs/c{i}.wav|{WORDS[i]}\n" for i in (2, 4)]
    (tmp_path / "list.txt").write_text("".join(lines))
    mels = run(monkeypatch, checkpoint, "", tmp_path / "out", f"--training_files={tmp_path / 'list.txt'}")
    assert list(mels) == ["c2", "c4"]
    (tmp_path / "c2.wav").write_bytes((corpus / "wavs/c2.wav").read_bytes())
    (tmp_path / "list.txt").write_text("".join([*lines, "c2.wav|Again.\n"]))
    with pytest.raises(UserError, match=r"would both become c2\.npy: rename one"):
        run(monkeypatch, checkpoint, "", tmp_path / "other", f"--training_files={tmp_path / 'list.txt'}")


def test_what_the_mels_of_a_folder_depend_on(toy, tmp_path):
    """Each weight, the seed, the precision, how texts are read: two runs with the same facts make the same mels."""
    args = argparse.Namespace(seed=5)
    toy["data_config"] = {"dictionary": "cmudict", "text_cleaners": ["basic_cleaners", "english_cleaners"]}
    synthesizer = Synthesizer(make_checkpoint(tmp_path / "a", toy), CPU)
    facts = teacher_forced.facts_of(args, synthesizer)
    assert facts == teacher_forced.facts_of(args, synthesizer) and re.fullmatch("crc32 [0-9a-f]{8}", facts["weights"])
    assert {name: value for name, value in facts.items() if name != "weights"} == {
        "seed": 5, "precision": "O0", "text_cleaners": "basic_cleaners english_cleaners", "dictionary": "cmudict",
    }  # fmt: skip
    digests = {facts["weights"]}
    for tensor in synthesizer.model.state_dict().values():
        before = tensor.flatten()[:1].clone()
        tensor.view(-1)[:1] += 1
        digests.add(teacher_forced.facts_of(args, synthesizer)["weights"])
        tensor.view(-1)[:1] = before
    assert len(digests) == 1 + len(synthesizer.model.state_dict())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"seed": 1, "b": "x"}', ""),
        ('{"seed": 1, "b": "x", "more": 2}', ""),
        ('{"seed": 2, "b": "x"}', "holds mels made with seed 2, now it is 1: name another folder"),
        ('{"seed": 1}', "holds mels made with b None, now it is 'x'"),
        ("[1]", "holds mels made with seed None, now it is 1"),
        ("{", "is not JSON"),
        (None, "No such file"),  # a link to nothing
    ],
)
def test_a_folder_holds_mels_of_one_making(tmp_path, content, said):
    path, facts = tmp_path / "facts.json", {"seed": 1, "b": "x"}
    path.symlink_to(tmp_path / "gone") if content is None else path.write_text(content)
    if not said:
        teacher_forced.settle_facts(path, facts)
        assert json.loads(path.read_text()) == facts
        return
    with pytest.raises(UserError, match=re.escape(said)):
        teacher_forced.settle_facts(path, facts)
    assert content is None or path.read_text() == content


def test_the_facts_are_written_into_a_fresh_folder(tmp_path):
    teacher_forced.settle_facts(tmp_path / "new.json", {"seed": 1})
    assert json.loads((tmp_path / "new.json").read_text()) == {"seed": 1}


@pytest.mark.parametrize("astray", [0, 1, 5, 6])
def test_clips_whose_attention_goes_astray_are_named(tmp_path, caplog, astray):
    """The worst first, five at most; not those that just reach the limit."""
    caplog.set_level(logging.INFO)
    measured = {f"c{i}.wav": Measured(1.0, 6.0, 0.5 - i / 100) for i in range(astray)}
    measured |= {"good.wav": Measured(3.0, 8.0, LEAST_DIAGONALITY), "better.wav": Measured(2.0, 7.0, 0.9)}
    teacher_forced.report(measured, 20, tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    names = [f"c{i}.wav" for i in reversed(range(astray))]
    listed = ", ".join(names[:5]) + (", ..." if astray > 5 else "")
    assert len(warnings) == bool(astray)
    assert all(f"in {astray} clips" in line and f"({listed})" in line for line in warnings)
    count = astray + 2
    means = (astray + 5) / count, (6 * astray + 15) / count
    assert f"mel L1 {means[0]:.3f}, MCD {means[1]:.2f} dB" in caplog.text
    assert f"{tmp_path} holds the mels of all 20 clips" in caplog.text


def test_batches_are_of_clips_of_like_length():
    assert teacher_forced.batches_of([5, 3, 9, 3, 1], 2) == [[4, 1], [3, 0], [2]]
    assert teacher_forced.batches_of([5, 3], 2) == [[1, 0]] and teacher_forced.batches_of([], 2) == []


def test_the_dropout_of_a_clip_is_drawn_by_its_name(toy, tmp_path, monkeypatch):
    """And by the seed, but not by its place in a batch or its folder's name."""
    synthesizer = Synthesizer(make_checkpoint(tmp_path / "a", toy), CPU)
    given = []
    monkeypatch.setattr(synthesizer.model, "predict", lambda *batch: given.append(batch[-1]))
    items = [{"names": name, "text": torch.ones(3).long(), "mel": torch.zeros(6, 4)} for name in ("a.wav", "b.wav")]
    for clips, seed in ((items, 1), (items[::-1], 1), (items[:1], 2)):
        teacher_forced.predict(clips, synthesizer, seed)
    (a, b), swapped, (of_other_seed,) = given
    assert len({a, b, of_other_seed}) == 3 and swapped == [b, a]
