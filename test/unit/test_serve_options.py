"""What the service is told on its command line: what is out of range is refused, and what is taken is used."""

import logging
import os
from types import SimpleNamespace

import pytest
from command_lines import read

main = pytest.importorskip("tools.serve.main", reason="requirement-serve.txt is not installed")
loading = pytest.importorskip("tools.serve.loading")
DECODING = loading.Decoding()
LOGGER_OF_TEXTS = logging.getLogger("tacotron2.synthesizer")


@pytest.mark.parametrize(
    "options",
    [
        ["--port=0"], ["--port=65536"], ["--queue=0"], ["--workers=0"], ["--memory=0"], ["--memory=nan"],
        ["--tacotron2=a"], ["--waveglow=a"], ["--voice=heart", "--tacotron2=a", "--waveglow=a"],
    ],
)  # fmt: skip
def test_options_out_of_range_or_that_exclude_each_other_end_with_code_2(monkeypatch, capsys, options):
    with pytest.raises(SystemExit) as end:
        read(monkeypatch, main, *options)
    assert end.value.code == 2
    assert options[0].partition("=")[0] in capsys.readouterr().err


def test_the_smallest_and_largest_that_is_taken(monkeypatch):
    args = read(monkeypatch, main, "--port=1", "--queue=1", "--workers=1", "--memory=0.1")
    assert (args.port, args.queue, args.workers, args.memory) == (1, 1, 1, 0.1)
    assert read(monkeypatch, main, "--port=65535").port == 65535


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
    main.serve(0, None, read(monkeypatch, main, *options), b"", [], DECODING)
    assert served["voices"][2:] == (4, "O1", 2, DECODING)  # cores of each worker
    assert served["limits"].speeches == 5


def test_workers_share_the_cards(monkeypatch, served):
    picked = []
    monkeypatch.setattr(main, "pick_device", lambda *given: picked.append(given) or SimpleNamespace(type="cuda"))
    monkeypatch.setattr(main, "device_count", lambda kind: 2)
    for index in range(3):
        main.serve(index, None, read(monkeypatch, main, "--workers=3"), b"", [], DECODING)
    assert picked[1::2] == [("cuda", 0), ("cuda", 1), ("cuda", 0)]


@pytest.mark.parametrize("option", [[], ["--log_text"]])
def test_texts_are_logged_only_if_somebody_asks_for_it(monkeypatch, served, option):
    main.serve(0, None, read(monkeypatch, main, "--device=cpu", *option), b"", [], DECODING)
    assert LOGGER_OF_TEXTS.level == (logging.NOTSET if option else logging.ERROR)


def test_without_options_it_serves_the_shipped_voice_on_this_machine_alone(monkeypatch):
    args = read(monkeypatch, main)
    assert (args.host, args.port, args.workers, args.memory, args.queue) == ("127.0.0.1", 8000, 1, 4.0, 64)
    assert (args.device, args.amp, args.engine, args.quant_mode) == ("auto", None, "torch", "force_float32")
    assert (args.voice, args.tacotron2, args.waveglow, args.api_key_file, args.log_text) == (
        None,
        None,
        None,
        None,
        False,
    )
