"""A measurement: what the devices are told, what is said of clips without an end, what the report gets."""

import logging
import sys
from dataclasses import replace

import pytest
from deploy_toys import engines
from iterations import iteration

from tools.deploy.artifacts import Source, read_contents
from tools.deploy.checkpoints import RANDOM
from tools.deploy.infer_python import infer
from tools.deploy.infer_python import measure as measuring
from tools.deploy.infer_python.latency import DeviceResult


@pytest.fixture
def works(monkeypatch):
    """What devices would do: two iterations each, of two clips."""
    found = []

    def run(works):
        found.extend(works)
        return {work.device: DeviceResult("a card", [iteration(batch=2, endless=1)] * 2) for work in works}

    monkeypatch.setattr(measuring, "run_on_devices", run)
    return found


def measured(monkeypatch, *options, text=None, **changes):
    """The run for these options, of engines whose contents have these changes."""
    monkeypatch.setattr(sys, "argv", ["infer", *options])
    contents = replace(read_contents(engines(), "onnxruntime", ""), **changes)
    return measuring.measure(infer.read_arguments(), engines(), contents, 2, text)


def told(work):
    """Of each batch its texts, and where they go."""
    return [[(clip.text, clip.wav.name) for clip in clips] for clips in work.batches]


def test_each_device_is_told_its_share(monkeypatch, works, tmp_path):
    options = ["--devices=1,4", "--num_iters=3", "--warmup_iters=2", "--il=20", f"-o={tmp_path}", "--no-waveglow"]
    measured(monkeypatch, *options, "--seed=7")
    assert [(work.device, work.shares, len(work.batches)) for work in works] == [(1, 2, 2), (4, 2, 1)]
    assert sorted(clip.seed for work in works for clips in work.batches for clip in clips) == list(range(7, 13))
    for work in works:
        assert (work.folder, work.contents.engine, work.with_waveglow) == (engines(), "onnxruntime", False)
        assert work.warmup == work.batches[:1] * 2
        assert told(work)[0] == [(work.batches[0][0].text, f"dev{work.device}_{i}.wav") for i in range(2)]
        assert {clip.wav.parent for clips in work.batches for clip in clips} == {tmp_path}
        assert len(work.batches[0][0].text) == 20


def test_devices_that_have_nothing_to_speak_take_no_share(monkeypatch, works):
    """The cores of the CPU are those of the others."""
    run = measured(monkeypatch, "--devices=0,1,2", text=["One.", "Two."])
    assert [(work.device, work.shares, told(work)) for work in works] == [
        (0, 2, [[("One.", "out_0001.wav")]]),
        (1, 2, [[("Two.", "out_0002.wav")]]),
    ]
    assert list(run.devices) == [0, 1]


def test_the_report_says_what_was_measured(monkeypatch, works):
    contents = read_contents(engines(), "onnxruntime", "")
    run = measured(monkeypatch, "--il=33")
    assert (run.engine, run.quant_mode, run.batch, run.input_length) == ("onnxruntime", "force_float32", 2, 33)
    assert run.weights == {kind: source.path for kind, source in contents.sources.items()}
    assert run.cost == contents.cost
    assert measured(monkeypatch, "--il=33", text=["One."]).input_length is None


def test_clips_without_an_end_are_counted_over_all_devices(monkeypatch, works, caplog):
    measured(monkeypatch, "--devices=0,1", "--num_iters=4")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["4 of 8 clips find no end and are cut off at the limit of frames"]


def test_the_noise_is_as_loud_as_asked_for(monkeypatch, works):
    for options in ([], ["--sigma=0"], ["--sigma=0.3"]):
        measured(monkeypatch, *options, sigma=0.45)
    assert [work.sigma for work in works] == [0.45, 0, 0.3]


def test_random_weights_are_no_reason_to_warn(monkeypatch, works, caplog):
    sources = read_contents(engines(), "onnxruntime", "").sources
    for source, warns in ((sources["tacotron2"], True), (Source(RANDOM), False)):
        caplog.clear()
        measured(monkeypatch, sources=sources | {"tacotron2": source})
        assert ("2 of 4 clips find no end" in caplog.text) == warns
