"""What the service is told on its command line: what is out of range is refused, and what is taken is used."""

import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.voices import Settings
from conftest import RATE
from runs import CPU

main = pytest.importorskip("tools.serve.main", reason="requirement-serve.txt is not installed")
loading = pytest.importorskip("tools.serve.loading")
voices = pytest.importorskip("tools.serve.voices")
DECODING = loading.Decoding()
LOGGER_OF_TEXTS = logging.getLogger("tacotron2.synthesizer")


def read(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["serve", *options])
    return main.read_arguments()


@pytest.mark.parametrize(
    "options",
    [
        ["--port=0"], ["--port=65536"], ["--queue=0"], ["--workers=0"], ["--memory=0"], ["--memory=nan"],
        ["--tacotron2=a"], ["--waveglow=a"], ["--voice=heart", "--tacotron2=a", "--waveglow=a"],
    ],
)  # fmt: skip
def test_what_is_refused(monkeypatch, capsys, options):
    with pytest.raises(SystemExit) as end:
        read(monkeypatch, *options)
    assert end.value.code == 2
    assert options[0].partition("=")[0] in capsys.readouterr().err


def test_the_smallest_and_largest_that_is_taken(monkeypatch):
    args = read(monkeypatch, "--port=1", "--queue=1", "--workers=1", "--memory=0.1")
    assert (args.port, args.queue, args.workers, args.memory) == (1, 1, 1, 0.1)
    assert read(monkeypatch, "--port=65535").port == 65535


@pytest.fixture
def served(monkeypatch):
    """What a process would serve."""
    found = {}
    nothing = SimpleNamespace(signal=lambda *_: None, SIGTERM=0)
    monkeypatch.setattr(main, "signal", nothing)
    monkeypatch.setattr(main, "voices_on", lambda *given: found.setdefault("voices", given))
    monkeypatch.setattr(main, "answer", lambda voices, limits, key, place: found.setdefault("limits", limits))
    monkeypatch.setattr(main.asyncio, "run", lambda answered: None)
    yield found
    LOGGER_OF_TEXTS.setLevel(logging.NOTSET)


def test_what_it_is_told_is_used(monkeypatch, served):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    options = ["--workers=3", "--queue=5", "--memory=2", "--amp=O1", "--device=cpu"]
    main.serve(0, None, read(monkeypatch, *options), b"", [], DECODING)
    assert served["voices"][2:] == (4, "O1", 2, DECODING)  # cores of each worker
    assert served["limits"].speeches == 5


def test_workers_share_the_cards(monkeypatch, served):
    picked = []
    monkeypatch.setattr(main, "pick_device", lambda *given: picked.append(given) or SimpleNamespace(type="cuda"))
    monkeypatch.setattr(main, "device_count", lambda kind: 2)
    for index in range(3):
        main.serve(index, None, read(monkeypatch, "--workers=3"), b"", [], DECODING)
    assert picked[1::2] == [("cuda", 0), ("cuda", 1), ("cuda", 0)]


@pytest.mark.parametrize("option", [[], ["--log_text"]])
def test_texts_are_logged_only_if_somebody_asks_for_it(monkeypatch, served, option):
    main.serve(0, None, read(monkeypatch, "--device=cpu", *option), b"", [], DECODING)
    assert LOGGER_OF_TEXTS.level == (logging.NOTSET if option else logging.ERROR)


def test_memory_is_in_gib_and_two_threads_compute(monkeypatch):
    """Each with half of the process's cores; an engine beside them gets its share, too."""
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    made = loading.voices_on(CPU, [voices.Entry("toy", Settings(), RATE)], threads=6, memory=1.5)
    assert made.memory == 1.5 * 2**30
    assert threads == [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    assert loading.shares() == 4


@pytest.mark.parametrize(("flags", "level"), [("sse4_2 amx_bf16", "O1"), ("avx512_bf16", "O1"), ("avx512f", "")])
def test_bfloat16_is_for_cpus_that_compute_in_it(monkeypatch, flags, level):
    """A card keeps its own precision, whatever the CPU beside it can do."""
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    assert loading.fastest_level(CPU) == level
    assert loading.fastest_level(SimpleNamespace(type="cuda")) == ""


def test_what_is_said_of_checkpoints_is_said_of_both(monkeypatch):
    given = []
    for name in ("Synthesizer", "Vocoder"):
        monkeypatch.setattr(loading, name, lambda path, *_, hints, **__: given.append((path, hints)))
    hints = {"data_config": {"sampling_rate": RATE}}
    entry = voices.Entry("toy", Settings(), RATE, "tacotron2_1", "waveglow_1", hints)
    loading.load_synthesizer(entry, CPU, "", DECODING)
    loading.load_vocoder(entry, CPU, "")
    assert given == [("tacotron2_1", hints), ("waveglow_1", hints)]


@pytest.mark.parametrize(("symbols", "said"), [([1, 2], loading.WARM_UP), ([], "Да.")])
def test_a_voice_warms_up_with_what_it_can_say(monkeypatch, symbols, said):
    """One of another alphabet has no symbols for the English sentence."""
    spoken = []
    synthesizer = SimpleNamespace(
        config=None, path="", symbols=lambda text: symbols, alphabet=SimpleNamespace(example=lambda: "Да."),
        speak=lambda texts, tries: spoken.extend(texts) or [],
    )  # fmt: skip
    monkeypatch.setattr(loading, "load_synthesizer", lambda *_: synthesizer)
    monkeypatch.setattr(loading, "load_vocoder", lambda *_: SimpleNamespace(config=None))
    monkeypatch.setattr(loading, "check_same_audio", lambda *_: None)
    monkeypatch.setattr(loading, "Speaker", lambda *_: None)
    loading.load(voices.Entry("toy", Settings(), RATE), CPU, "", DECODING)
    assert spoken == [said]
