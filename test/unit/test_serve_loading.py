"""What the service finds to load and how: voices of checkpoints and of engines, their rate and precision."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.voices import Settings
from conftest import RATE
from runs import CPU

loading = pytest.importorskip("tools.serve.loading", reason="requirement-serve.txt is not installed")
voices = pytest.importorskip("tools.serve.voices")
DECODING = loading.Decoding()


ANNA = voices.Entry("anna", Settings({}, 0.4, 0.2, ["basic_cleaners"]), RATE, "t", "w", {"a": {}})


H = {"data_config": {"sampling_rate": 16000}}


OF_DIR = "contents of dir, start the service again"


ENGINES = voices.Entry("e", ANNA.settings, RATE, engines=Path("dir"))


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


@pytest.fixture
def parts(monkeypatch):
    """What the models are made of, as they were asked for."""
    made = []
    for name in ("Synthesizer", "Vocoder", "EngineSynthesizer", "EngineVocoder"):
        monkeypatch.setattr(loading, name, lambda *given, name=name, **more: made.append((name, given, more)))
    monkeypatch.setattr(loading, "read_any_contents", lambda folder, what: f"contents of {folder}, {what}")
    monkeypatch.setattr(loading, "shares", lambda: 5)
    return made


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


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_each_model_runs_by_the_checkpoint_or_the_engine_of_its_voice(parts, engine):
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
