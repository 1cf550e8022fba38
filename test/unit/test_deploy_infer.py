"""Inference: what is asked for is done and reported, and what cannot be done is said in a line."""

import json
import sys
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from deploy_toys import (
    FIELDS,
    WAVEGLOW_FIELDS,
    engines,
    make,
    models_dir,
    raw,
    report_of,
    run_infer,
    run_script,
    to_infer,
)
from test_deploy_report import iteration

from common.program import UserError
from tacotron2.text import text_to_sequence
from tools.deploy.artifacts import Source, read_contents
from tools.deploy.benchmark import perf
from tools.deploy.checkpoints import RANDOM
from tools.deploy.infer_python import infer, worker
from tools.deploy.infer_python import measure as measuring
from tools.deploy.infer_python.latency import DeviceResult
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.infer_python.requests import Request, of_text, reader, sentence
from tools.deploy.infer_python.worker import Wavs, Work, do


def test_the_script_speaks_and_reports(tmp_path):
    options = ["--num_iters=3", "--warmup_iters=1", "--log_file=my logs/latency.txt", "-o", "my wavs"]
    done = run_infer("force_float32", "2", "20", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "my logs/latency.txt").read_text()
    assert text.startswith("onnxruntime, force_float32, batch 2, 20 characters\n")
    report = report_of(text)
    assert list(report) == ["dev[0]"]
    assert list(report["dev[0]"]) == FIELDS + WAVEGLOW_FIELDS
    assert report["dev[0]"]["Iterations"] == 3
    saved = json.loads((tmp_path / "my logs/latency.txt.json").read_text())["runs"]
    assert len(saved[0]["devices"][0]["iterations"]) == 3
    assert saved[0]["devices"][0]["report"]["Latency average (seconds)"] == pytest.approx(
        report["dev[0]"]["Latency average (seconds)"], abs=1e-6
    )
    for i in range(2):
        audio, rate = soundfile.read(tmp_path / f"my wavs/dev0_{i}.wav")
        assert rate == 22050
        assert len(audio) % 256 == 0
        assert np.abs(audio).max() > 0


def test_without_waveglow(run_here, tmp_path):
    done = run_here(infer.main, *to_infer("force_float32", "1", "20", "--num_iters=1", "--no-waveglow", "-o", tmp_path))
    report = report_of(done.stdout)["dev[0]"]
    assert list(report) == FIELDS
    assert not list(tmp_path.glob("*.wav"))


def test_all_batches_that_were_built_for(run_here, tmp_path):
    once = ["--num_iters=1", "--warmup_iters=0"]
    done = run_here(infer.main, *to_infer("force_float32", "1", "20", *once, "--all", "-o", tmp_path))
    heads = [line for line in done.stdout.splitlines() if line.endswith("20 characters")]
    assert [head.split(", ")[2] for head in heads] == ["batch 1", "batch 2", "batch 4"]
    assert [run["batch"] for run in json.loads((tmp_path / "latency.json").read_text())["runs"]] == [1, 2, 4]


def test_a_batch_that_is_built_for_twice_is_measured_once(run_here, tmp_path):
    make(tmp_path / "engines", batch=(2, 2, 2))
    options = ["--all", "--num_iters=1", "--warmup_iters=0", "--il=20", "--no-waveglow"]
    done = run_here(infer.main, "--models_dir=engines", "-o", "out", *options)
    assert done.returncode == 0, done.stderr
    assert [run["batch"] for run in json.loads((tmp_path / "out/latency.json").read_text())["runs"]] == [2]


def test_a_text_is_spoken_line_by_line(tmp_path):
    long = "This line is longer than any engine takes in one go, so it is cut. " * 4
    (tmp_path / "my text.txt").write_text(f"Hello 漢.\n\n...\n{long}\nBye.\n")
    wavs = tmp_path / "my wavs"
    done = run_infer("force_float32", "4", "1", "--text=my text.txt", "-o", str(wavs), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in wavs.glob("*.wav")) == ["out_0001.wav", "out_0004.wav", "out_0005.wav"]
    assert "onnxruntime, force_float32, batch 4, a text" in done.stdout.splitlines()
    short, long = (soundfile.info(wavs / f"out_{number:04}.wav").frames for number in (1, 4))
    assert long > short
    assert "line 1: transliterated: '漢' as 'han '" in done.stderr
    assert "line 3: nothing is left to speak" in done.stderr
    assert "6 of 6 clips find no end and are cut off at the limit of frames" in done.stderr


def test_a_wav_that_cannot_be_written(run_here, tmp_path):
    (tmp_path / "dev0_0.wav").mkdir()
    once = ["--num_iters=1", "--warmup_iters=0"]
    done = run_here(infer.main, *to_infer("force_float32", "1", "20", *once, "-o", tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {tmp_path}/dev0_0.wav: it is a folder, move it\n"


@pytest.mark.parametrize("with_waveglow", [True, False])
def test_numbers_that_are_none(tmp_path, monkeypatch, with_waveglow):
    contents = read_contents(engines(), "onnxruntime", "")
    monkeypatch.setattr(Pipeline, "spectrograms", lambda self, texts, seeds: not_finite(self, texts))
    clips = [[Request("Hello.", 1, tmp_path / "a.wav")]]
    with pytest.raises(UserError, match="is not finite: force_float32 does not suffice here"):
        list(do(Work(engines(), contents, 0, 1, [], clips, 0.6, with_waveglow)))
    assert not (tmp_path / "a.wav").exists()


def test_audio_that_is_none(tmp_path, monkeypatch):
    """Of a spectrogram that is one."""
    monkeypatch.setattr(Pipeline, "audio", lambda self, mel, lengths, *_: [np.full(9, np.nan, np.float32)])
    clips = [[Request("Hello.", 1, tmp_path / "a.wav")]]
    work = Work(engines(), read_contents(engines(), "onnxruntime", ""), 0, 1, [], clips, 0.6, with_waveglow=True)
    with pytest.raises(UserError, match="is not finite: force_float32 does not suffice here"):
        list(do(work))


def not_finite(pipeline, texts):
    pipeline.seconds |= dict.fromkeys(["encoder", "decoder", "postnet"], 1.0)
    return np.full((len(texts), 6, 40), np.nan, np.float32), np.full(len(texts), 40)


def test_what_is_measured_is_the_time_of_its_part(tmp_path, monkeypatch):
    """By a clock that goes on by a second with each look."""
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=count().__next__))
    clips = [[Request("Hello.", seed, tmp_path / f"{seed}.wav") for seed in (1, 2)]]
    work = Work(engines(), read_contents(engines(), "onnxruntime", ""), 0, 1, [], clips, 0.6, with_waveglow=True)
    *_, iteration = do(work)
    assert (iteration.batch, iteration.samples) == (2, 2 * 256 * iteration.mels)  # as long as the longest, each
    parts = ("preprocessing", "tacotron2", "latency", "postprocessing")
    assert [getattr(iteration, name) for name in parts] == [1, 1, 2, 1]


@pytest.fixture
def works(monkeypatch):
    """What devices would do; they would have one clip without an end."""
    found = []
    results = {0: DeviceResult("", [iteration(endless=1)])}
    monkeypatch.setattr(measuring, "run_on_devices", lambda works: found.extend(works) or results)
    return found


def measured(monkeypatch, contents, *options):
    monkeypatch.setattr(sys, "argv", ["infer", *options])
    return measuring.measure(infer.read_arguments(), engines(), contents, 2)


def test_the_noise_is_as_loud_as_asked_for(monkeypatch, works):
    contents = replace(read_contents(engines(), "onnxruntime", ""), sigma=0.45)
    for options in ([], ["--sigma=0"], ["--sigma=0.3"]):
        measured(monkeypatch, contents, *options)
    assert [work.sigma for work in works] == [0.45, 0, 0.3]


def test_it_warms_up_as_often_as_asked_for(monkeypatch, works):
    measured(monkeypatch, read_contents(engines(), "onnxruntime", ""), "--num_iters=2", "--warmup_iters=5")
    assert (len(works[0].warmup), len(works[0].batches)) == (5, 2)


def test_random_weights_are_no_reason_to_warn(monkeypatch, works, caplog):
    contents = read_contents(engines(), "onnxruntime", "")
    for source, warns in ((contents.sources["tacotron2"], True), (Source(RANDOM), False)):
        caplog.clear()
        measured(monkeypatch, replace(contents, sources=contents.sources | {"tacotron2": source}))
        assert ("1 of 1 clips find no end" in caplog.text) == warns


def test_each_clip_has_random_numbers_of_its_own(monkeypatch, works):
    contents = read_contents(engines(), "onnxruntime", "")
    measured(monkeypatch, contents, "--num_iters=5", "--seed=7", "--devices=0,1")
    assert sorted(clip.seed for work in works for batch in work.batches for clip in batch) == list(range(7, 17))


def test_no_piece_of_a_text_is_longer_than_the_engines_take(tmp_path):
    contents = read_contents(engines(), "onnxruntime", "")
    contents.ranges["text"] = [4, 8, 16]
    (batches,) = of_text(["One, two, three, four, and so on.", "Five."], contents, 1, [0], 1, tmp_path).values()
    clips = [clip for (clip,) in batches]
    lengths = [len(reader(contents)(clip.text)) for clip in clips]
    assert len(lengths) > 2 and max(lengths) <= 16
    assert {clip.wav.name: clip.ends for clip in clips} == {
        "out_0001.wav": True,
        "out_0002.wav": True,
    }  # the last of each
    assert sum(clip.ends for clip in clips) == 2


def test_clips_of_one_wav_are_joined_with_pauses(tmp_path):
    contents = read_contents(engines(), "onnxruntime", "")
    contents.waveglow.data_config.sampling_rate = 16000
    wavs = Wavs(contents)
    wavs.add(Request("", 0, tmp_path / "a.wav", pause=0.5, ends=False), np.full(100, 0.5, np.float32))
    assert not (tmp_path / "a.wav").exists()
    wavs.add(Request("", 0, tmp_path / "a.wav"), np.full(50, 0.25, np.float32))
    audio, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 16000
    assert audio.tolist() == [*[0.5] * 100, *[0.0] * 8000, *[0.25] * 50]


def test_perf_writes_a_table_and_a_plot(tmp_path, monkeypatch):
    engines()
    options = ["--quant_modes", "force_float32", "--bs=1,4", "--il=20", "--num_iters=2", "--warmup_iters=0"]
    monkeypatch.setattr(sys, "argv", ["perf", *options, f"--models_dir={models_dir()}", "-o", str(tmp_path)])
    perf.main()
    table = [line.split(" | ") for line in (tmp_path / "perf.md").read_text().splitlines() if line.startswith("|")]
    assert [row[1:4] for row in table[2:]] == [["20", "force_float32", "1"], ["20", "force_float32", "4"]]
    assert all(float(row[4].replace(",", "")) > 0 and float(row[5].replace(",", "")) > 0 for row in table[2:])
    assert (tmp_path / "perf.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "perf.json").read_text())["runs"]) == 2


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["force_float32", "5", "128"], 1, "--bs is 5, and these engines are built for 1 to 4"),
        (["force_float32", "1", "257"], 1, "--il is 257, and these engines are built for 4 to 256"),
        (["force_float32", "1", "3"], 1, "--il is 3, and these engines are built for 4 to 256"),
        (["int4", "1", "128"], 2, "invalid choice: 'int4'"),
        (["int8", "1", "128"], 1, "is force_float32, and int8 is asked for: name another quant mode"),
        (
            ["force_float32", "1", "128", "--engine=torch"],
            1,
            "is for onnxruntime, not for torch: name another",
        ),
        (["force_float32", "1", "128", "--devices=99"], 1, "device 99 does not exist"),
        (["force_float32", "1", "128", "--devices=0,99"], 1, "on device 99: device 99 does not exist"),
        (
            ["force_float32", "1", "128", "--devices=0,0"],
            2,
            "name each once, as in 0,1, and not '0 0'",
        ),
        (
            ["force_float32", "1", "128", "--devices=zero"],
            2,
            "must be numbers, such as 0,1, not 'zero'",
        ),
        (["force_float32", "1", "128", "--num_iters=0"], 2, "--num_iters must be at least 1"),
        (["force_float32", "1", "128", "--devices=0,1", "--num_iters=1"], 2, "--num_iters must be at least 2"),
        (["force_float32", "1", "128", "--devices=-1"], 2, "--devices/--device: must be numbers"),
        (["force_float32", "1", "128", "--sigma=nan"], 2, "--sigma must be at least 0"),
        (["force_float32", "1", "128", "--text=nowhere.txt"], 1, "nowhere.txt"),
        (["force_float32", "1,2", "128", "--text=a.txt"], 2, "--text goes with one --bs"),
        (["force_float32", "1", "128", "--text=a.txt", "--all"], 2, "neither with --all"),
        (["force_float32", "1", "128", "--text=a.txt", "--no-waveglow"], 2, "nor with --no-waveglow"),
        (["force_float32", "1", "128", "--log_file=/dev/null/x"], 1, "cannot write to output_directory /dev/null"),
    ],
)
def test_what_is_asked_for_wrongly_is_said_in_a_line(run_here, tmp_path, options, code, says):
    done = run_here(infer.main, *to_infer(*options, "-o", tmp_path))
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_so_are_values_that_the_script_misses():
    done = run_script("infer_python/run.sh", "force_float32", "1")
    assert done.returncode == 2
    assert "give QUANT_MODE BS INPUT_LENGTH" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["...\n--\n", "", "ъ\n"])
def test_a_text_with_nothing_to_speak(run_here, tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    done = run_here(infer.main, *to_infer("force_float32", "1", "1", "--text=a.txt", "-o", tmp_path))
    assert done.returncode == 1
    assert "nothing of the text can be spoken, it needs letters or digits" in done.stderr


def test_sentence_is_the_seeds():
    text = sentence(333)
    assert len(text) == 333
    assert text.endswith("shapeliness of the letters themselves.")
    assert text.count("The forms of printed letters") == 2


def test_a_sentence_that_is_cut_has_an_end():
    for length in range(2, 400):
        text = sentence(length)
        assert text.endswith(".") and not text.endswith("..")
        assert length - 3 <= len(text) <= length
    assert sentence(1) == "T"


def test_a_text_is_read_with_the_dictionary_of_the_training(tmp_path):
    contents = raw()
    contents.tacotron2.data_config.dictionary = str(tmp_path / "my.dict")
    with pytest.raises(UserError, match=r"cannot read the dictionary .*my.dict"):
        reader(contents)
    (tmp_path / "my.dict").write_text("HELLO  HH AH0 L OW1\n")
    assert reader(contents)("Hello you.") == text_to_sequence("{HH AH0 L OW1} you.", [])
