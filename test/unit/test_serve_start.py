"""How the service starts: its options, the voices that it finds, what each voice is loaded with."""

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.program import UserError
from common.voices import Settings
from conftest import RATE
from runs import CPU

main = pytest.importorskip("tools.serve.main", reason="requirement-serve.txt is not installed")
loading = pytest.importorskip("tools.serve.loading")
voices = pytest.importorskip("tools.serve.voices")
errors = pytest.importorskip("tools.serve.errors")
ANNA = voices.Entry("anna", Settings({}, 0.4, 0.2, ["basic_cleaners"]), RATE, "t", "w", {"a": {}})


def read(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["serve", *options])
    return main.read_arguments()


def test_what_is_the_default(monkeypatch):
    args = read(monkeypatch)
    assert (args.host, args.port, args.workers, args.memory, args.queue) == ("127.0.0.1", 8000, 1, 4.0, 64)
    assert (args.device, args.amp, args.engine, args.quant_mode) == ("auto", None, "torch", "force_float32")
    assert (args.voice, args.tacotron2, args.waveglow, args.api_key_file, args.log_text) == (
        None,
        None,
        None,
        None,
        False,
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_all_that_it_is_told_is_used(monkeypatch, workers):
    did = {}
    monkeypatch.setattr(main, "open_log", lambda *_, **__: None)
    monkeypatch.setattr(main, "read_key", lambda path: f"key of {path}")
    monkeypatch.setattr(main, "hints_for_both", lambda args: "hints")
    monkeypatch.setattr(main, "find_voices", lambda *given: did.setdefault("voices", given) and ["entry"])
    monkeypatch.setattr(main, "make_engines", lambda *given: did.setdefault("engines", given))
    monkeypatch.setattr(main, "open_port", lambda *given: did.setdefault("port", given) and "place")
    monkeypatch.setattr(main, "serve", lambda *given, **more: did.setdefault("serve", (given, more)))
    monkeypatch.setattr(main, "run_workers", lambda *given: did.setdefault("workers", given))
    options = [
        "--tacotron2=t",
        "--waveglow=w",
        "--host=0.0.0.0",
        "--port=9",
        "--api_key_file=k",
        f"--workers={workers}",
    ]
    args = read(monkeypatch, *options)
    monkeypatch.setattr(main, "read_arguments", lambda: args)
    main.main()
    decoding = loading.Decoding("torch", "force_float32", args.models_dir)
    assert (did["voices"], did["port"]) == (("", "t", "w", "hints"), ("0.0.0.0", 9))
    assert "engines" not in did
    own = {"args": args, "key": "key of k", "entries": ["entry"], "decoding": decoding}
    if workers == 1:
        assert did["serve"] == ((0, "place", *own.values()), {})
    else:
        count, place, work, seconds = did["workers"]
        assert (count, place, seconds) == (3, "place", 130)
        work(2, "place")
        assert did["serve"] == ((2, "place"), own)
    args.engine, args.voice, args.tacotron2, args.waveglow = "onnxruntime", "anna", None, None
    did.clear()
    main.main()
    assert did["voices"][:3] == ("anna", "", "")
    assert did["engines"] == (["entry"], loading.Decoding("onnxruntime", "force_float32", args.models_dir))


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_is_listened_at(host, family):
    try:
        place = main.open_port(host, 0)
    except UserError:
        pytest.skip("this machine has no such address")
    with place:
        assert place.family == family
        port = place.getsockname()[1]
        with socket.create_connection((host, port), timeout=60):
            pass
        with pytest.raises(
            UserError, match=rf"cannot listen on {host}:{port} \(Address already in use\): choose another"
        ):
            main.open_port(host, port)
    with pytest.raises(UserError, match=r"cannot listen on no such host:1 \(.*choose another --host or --port"):
        main.open_port("no such host", 1)


def test_sigterm_ends_it_while_it_loads(monkeypatch):
    handlers = {}
    monkeypatch.setattr(main, "signal", SimpleNamespace(signal=handlers.__setitem__, SIGTERM=signal.SIGTERM))
    monkeypatch.setattr(main, "voices_on", lambda *_: None)
    monkeypatch.setattr(main, "answer", lambda *given: given)
    ran = []
    monkeypatch.setattr(main.asyncio, "run", ran.append)
    logger = logging.getLogger("tacotron2.synthesizer")
    before = logger.level
    main.serve(0, "place", read(monkeypatch, "--device=cpu", "--queue=7"), b"key", [], loading.Decoding())
    logger.setLevel(before)
    with pytest.raises(SystemExit) as end:
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert end.value.code == 0
    ((_, limits, key, place),) = ran
    assert (limits.speeches, limits.characters, key, place) == (7, 4096, b"key", "place")


class Shelf:
    """Voices, of which the default one may not be there."""

    default = "anna"

    def __init__(self, error=None):
        self.error, self.did = error, []

    def entry(self, name):
        return f"entry of {name}"

    async def speaker(self, entry):
        self.did.append(entry)
        if self.error:
            raise self.error

    def close(self):
        self.did.append("closed")


@pytest.mark.parametrize("fails", [False, True])
def test_it_listens_when_the_default_voice_is_there_and_closes_them_at_the_end(monkeypatch, caplog, fails):
    caplog.set_level("INFO")
    shelf, made = Shelf(), []

    class Server:
        async def serve(self, places):
            shelf.did.append(places)
            if fails:
                raise KeyboardInterrupt

    monkeypatch.setattr(main, "make_application", lambda *given: made.append(given) or "app")
    monkeypatch.setattr(main, "make_server", lambda *given: made.append(given) or Server())
    place = SimpleNamespace(getsockname=lambda: ("127.0.0.1", 8123))
    try:
        asyncio.run(main.answer(shelf, "limits", b"key", place))
    except KeyboardInterrupt:
        assert fails
    assert shelf.did == ["entry of anna", [place], "closed"]
    assert made == [(shelf, "limits", b"key"), ("app", 120)]
    assert "listening on http://127.0.0.1:8123" in caplog.messages


def test_a_default_voice_that_cannot_be_loaded_is_told(monkeypatch):
    shelf = Shelf(errors.RefusalError(500, "the voice anna cannot be loaded"))
    with pytest.raises(UserError, match=r"^the voice anna cannot be loaded$"):
        asyncio.run(main.answer(shelf, None, b"", None))


# ---- voices ----


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """Voices b and c of checkpoints and d of engines; their entries as (kind, name, hints)."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / loading.CONTENTS).touch()
    monkeypatch.setattr(loading.voices, "FOLDER", tmp_path)
    monkeypatch.setattr(loading.voices, "names", lambda: ["c", "b"])
    monkeypatch.setattr(loading, "rate_of", lambda path, hints: (path, hints))
    monkeypatch.setattr(loading, "of_checkpoints", lambda name, hints: ("checkpoints", name, hints))
    monkeypatch.setattr(loading, "of_engines", lambda folder, hints: ("engines", folder.name, hints))


H = {"data_config": {"sampling_rate": 16000}}


def test_the_default_voice_is_the_first_and_the_others_follow_by_name(shelf):
    rest = [("checkpoints", "b", {}), ("checkpoints", "c", {}), ("engines", "d", {})]
    assert loading.find_voices() == [("checkpoints", "heart", {}), *rest]
    assert loading.find_voices("c", hints=H) == [("checkpoints", "c", H), rest[0], rest[2]]
    assert loading.find_voices("d", hints=H) == [("engines", "d", H), *rest[:2]]


def test_the_user_s_checkpoints_go_before_all(shelf):
    own, *others = loading.find_voices("", "t", "w", H)
    assert own == voices.Entry("own", Settings(), ("t", H), "t", "w", H)
    assert others[0] == ("checkpoints", "heart", {}) and len(others) == 4


def test_a_voice_of_checkpoints_has_its_settings(monkeypatch):
    found = SimpleNamespace(settings=ANNA.settings, tacotron2="t", waveglow="w")
    monkeypatch.setattr(loading.voices, "find_voice", lambda name: found)
    monkeypatch.setattr(loading, "rate_of", lambda path, hints: {"t": hints["data_config"]["sampling_rate"]}[path])
    assert loading.of_checkpoints("anna", H) == voices.Entry("anna", ANNA.settings, 16000, "t", "w", H)


def test_the_rate_is_what_the_checkpoint_says_or_else_the_user(monkeypatch):
    checkpoint = SimpleNamespace(config={"data_config": {}})
    monkeypatch.setattr(loading, "read", lambda path, kind: {("t", "tacotron2"): checkpoint}[path, kind])
    monkeypatch.setattr(loading, "with_hints", lambda path, found, hints, package: SimpleNamespace(config=hints))
    assert loading.rate_of("t", H) == 16000
    assert loading.rate_of("t", {}) == 22050


# ---- loading ----


@pytest.fixture
def parts(monkeypatch):
    """What the models are made of, as they were asked for."""
    made = []
    for name in ("Synthesizer", "Vocoder", "EngineSynthesizer", "EngineVocoder"):
        monkeypatch.setattr(loading, name, lambda *given, name=name, **more: made.append((name, given, more)))
    monkeypatch.setattr(loading, "read_any_contents", lambda folder, what: f"contents of {folder}, {what}")
    monkeypatch.setattr(loading, "shares", lambda: 5)
    return made


ENGINES = voices.Entry("e", ANNA.settings, RATE, engines=Path("dir"))
OF_DIR = "contents of dir, start the service again"


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_what_runs_each_model(parts, engine):
    decoding = loading.Decoding(engine, "int8", Path("models"))
    for entry in (ANNA, ENGINES):
        loading.load_synthesizer(entry, CPU, "O1", decoding)
        loading.load_vocoder(entry, CPU, "O1")
    folder = Path("models/anna/onnxruntime_int8")
    by_torch = ("Synthesizer", ("t", CPU, "O1"), {"hints": {"a": {}}, "cleaners": ["basic_cleaners"]})
    by_engine = (
        "EngineSynthesizer",
        (folder, f"contents of {folder}, start the service again", 5, ["basic_cleaners"]),
        {},
    )
    assert parts == [
        by_torch if engine == "torch" else by_engine,
        ("Vocoder", ("w", CPU, "O1"), {"hints": {"a": {}}}),
        ("EngineSynthesizer", (Path("dir"), OF_DIR, 5, ["basic_cleaners"]), {}),
        ("EngineVocoder", (Path("dir"), OF_DIR, 5), {}),
    ]


def test_a_voice_has_spoken_its_first_sentence_and_fits_together(monkeypatch):
    did = []
    synthesizer = SimpleNamespace(
        config="t config", path="t path", symbols=lambda text: [1],
        speak=lambda texts, tries: [SimpleNamespace(utterance=SimpleNamespace(mel=f"{texts} in {tries}"))],
    )  # fmt: skip
    vocoder = SimpleNamespace(config="w config", synthesize=did.append)
    monkeypatch.setattr(loading, "load_synthesizer", lambda *given: did.append(given) or synthesizer)
    monkeypatch.setattr(loading, "load_vocoder", lambda *given: did.append(given) or vocoder)
    monkeypatch.setattr(loading, "check_same_audio", lambda *given: did.append(given))
    monkeypatch.setattr(loading, "Speaker", lambda *given: ("speaker", *given))
    assert loading.load(ANNA, CPU, "O1", "decoding") == ("speaker", synthesizer, vocoder)
    assert did == [
        (ANNA, CPU, "O1", "decoding"), (ANNA, CPU, "O1"), ("t config", "t path", "w config", "w"),
        f"{[loading.WARM_UP]} in 1",
    ]  # fmt: skip


@pytest.mark.parametrize(("device", "threads", "set_to"), [("cpu", 6, [3]), ("cpu", 1, [1]), ("cuda", 6, [])])
@pytest.mark.parametrize(("amp", "used"), [("", "fastest"), ("O2", "O2")])
def test_voices_are_loaded_to_a_device(monkeypatch, device, threads, set_to, amp, used):
    found, given = [], []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(loading, "fastest_level", lambda device: "fastest")
    monkeypatch.setattr(loading, "load", lambda entry, **more: given.append((entry, more)))
    device = SimpleNamespace(type=device)
    shelf = loading.voices_on(device, [ANNA], threads, amp, decoding="decoding")
    shelf._load(ANNA)
    assert found == set_to
    assert given == [(ANNA, {"device": device, "amp": used, "decoding": "decoding"})]
    assert shelf.memory == 4 * 2**30


def test_engines_are_made_of_what_is_not_there(monkeypatch):
    did = []
    settings = SimpleNamespace(for_batches=lambda sizes: f"for {sizes}")
    monkeypatch.setattr(loading, "load_settings", lambda path: settings)
    monkeypatch.setattr(loading, "naming", lambda paths: ["--naming"])
    monkeypatch.setattr(loading.stages, "are_there", lambda folder, wanted: folder.parent.name == "there")
    monkeypatch.setattr(loading, "export_graphs", lambda models_dir, wanted: did.append(("export", models_dir, wanted)))
    monkeypatch.setattr(loading, "build", lambda order: did.append(("build", order)))
    there = voices.Entry("there", ANNA.settings, RATE, Path("t"), "w")
    new, hinted = (
        voices.Entry(name, ANNA.settings, RATE, Path("t"), "w", hints) for name, hints in (("new", {}), ("there", H))
    )
    decoding = loading.Decoding("onnxruntime", "int8", Path("models"))
    loading.make_engines([there, new, ENGINES, hinted], decoding)
    folders = [Path("models") / name for name in ("there", "new", "there")]
    orders = [
        loading.Order("onnxruntime", "int8", each, each / "onnxruntime_int8", "for [1, 4, 8]") for each in folders
    ]
    wanted = [
        loading.Wanted({"tacotron2": "t", "waveglow": "w"}, True, 0.4, hints, ["basic_cleaners"], ["--naming"])
        for hints in ({}, H)
    ]
    assert did == [
        ("build", orders[0]), ("export", Path("models/new"), wanted[0]), ("build", orders[1]),
        ("export", Path("models/there"), wanted[1]), ("build", orders[2]),
    ]  # fmt: skip
