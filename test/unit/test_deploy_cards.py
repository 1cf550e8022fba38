"""Engines on cards, by stand-ins for these: which card, how many threads, what is computed there, its name."""

from dataclasses import replace
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import torch
from deploy_toys import make, models_dir, raw

from conftest import write_programs
from runs import CPU
from tools.deploy.engines import hardware_names, onnxruntime_engine, quantization, torch_engine
from tools.deploy.engines.engine import Build, counted
from tools.deploy.engines.onnxruntime_engine import OnnxRuntime
from tools.deploy.engines.torch_engine import Torch
from tools.deploy.infer_python.synthesizer import EngineSynthesizer
from tools.deploy.infer_python.vocoder import EngineVocoder


@pytest.fixture
def card(monkeypatch):
    """ONNX Runtime's cards; a session keeps what it is made with."""
    models_dir()  # whose making needs real ones
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime_engine, "check_card", lambda device: None)
    monkeypatch.setattr(onnxruntime_engine, "cuda_card_name", lambda device: f"a card, {device}")

    def session(path, options, providers):
        return SimpleNamespace(options=options, providers=providers, get_outputs=lambda: [])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


def test_onnxruntime_computes_on_the_card_that_was_asked_for(card):
    """With one thread, which only feeds it; what it has no operator for is done by the CPU."""
    engine = OnnxRuntime(3, 2, {})
    graph = engine.load(models_dir() / "onnx/postnet.onnx", "postnet", raw())
    assert graph.session.providers == [("CUDAExecutionProvider", {"device_id": 3}), "CPUExecutionProvider"]
    assert (graph.session.options.intra_op_num_threads, graph.session.options.inter_op_num_threads) == (1, 1)
    assert (graph.place, engine.place) == (("cuda", 3), ("cuda", 3))
    assert engine.device_name == f"ONNX Runtime {onnxruntime.__version__} on a card, 3"


@pytest.mark.parametrize("on_card", [False, True])
def test_8_bits_are_those_of_the_machine_that_builds(tmp_path, monkeypatch, on_card):
    """A card has no product of integers."""
    asked = []
    monkeypatch.setattr(quantization, "to_int8", lambda model, on_card: asked.append(on_card))
    providers = ["CUDAExecutionProvider"] * on_card + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    graph = models_dir() / "onnx/postnet.onnx"
    request = Build("postnet", raw().signature("postnet"), graph, raw().sources["tacotron2"], "int8", {})
    OnnxRuntime.build(request, tmp_path / "built.onnx")
    assert asked == [on_card]


def test_half_precision_on_a_card_leaves_what_goes_in_and_comes_out_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    graph = models_dir() / "onnx/postnet.onnx"
    request = Build("postnet", raw().signature("postnet"), graph, raw().sources["tacotron2"], "force_float16", {})
    OnnxRuntime.build(request, tmp_path / "built.onnx")
    types = lambda path: [  # noqa: E731
        port.type.tensor_type.elem_type for ports in (onnx.load(path).graph.input, onnx.load(path).graph.output)
        for port in ports
    ]  # fmt: skip
    assert types(tmp_path / "built.onnx") == types(graph)
    halves = [each for each in onnx.load(tmp_path / "built.onnx").graph.initializer if each.data_type == 10]
    assert halves


@pytest.mark.parametrize(("kind", "number", "threads"), [("cuda", 3, 1), ("cpu", 0, 5)])
def test_pytorch_takes_the_card_that_was_asked_for_or_its_share_of_the_cpu(monkeypatch, kind, number, threads):
    asked, given = [], []

    def pick(name="auto", index=None):
        asked.append((name, index))
        return replace(CPU, type=kind)

    monkeypatch.setattr(torch_engine, "pick_device", pick)
    monkeypatch.setattr(torch_engine, "share_of_cores", lambda device, shares: 5)
    monkeypatch.setattr(torch_engine, "keep_freed_memory", lambda device: None)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    engine = Torch(3, 2, {})
    assert asked == [("auto", None), (kind, number)]
    assert given == [engine.threads] == [threads]


@pytest.mark.parametrize(
    ("kind", "mode", "computes"),
    [
        ("cuda", "force_float32", torch.float32),
        ("cuda", "force_float16", torch.float16),
        ("cuda", "int8", torch.bfloat16),
        ("npu", "force_float16", torch.float16),
    ],
)
def test_what_pytorch_computes_in_on_a_card(kind, mode, computes):
    assert torch_engine.precision(mode, replace(CPU, type=kind, half=torch.bfloat16)) == computes
    older = replace(CPU, type=kind, half=torch.float16)  # without bfloat16
    assert torch_engine.precision("int8", older) == torch.float32


def test_threads_are_counted():
    assert [counted(threads) for threads in (1, 2)] == ["1 thread", "2 threads"]


def test_pytorch_looks_at_gates_every_few_frames_on_a_card_alone():
    looks = {kind: torch_engine.TorchGraph(torch.nn.Identity(), [], torch.device(kind), torch.float32)
             for kind in ("cpu", "meta")}  # fmt: skip
    assert looks["cpu"].steps_at_a_time == 1
    assert looks["meta"].steps_at_a_time == torch_engine.STEPS_BETWEEN_LOOKS > 1


def test_pytorch_lays_the_layers_out_as_the_device_wants_them(tmp_path, monkeypatch):
    laid = []
    monkeypatch.setattr(torch_engine, "use_channels_last", lambda model, device: laid.append(type(model).__name__))
    contents = make(tmp_path, "torch")
    for name in ("postnet", "waveglow"):
        Torch(0, 1, {}).load(contents.path(tmp_path, name), name, contents)
    assert laid == ["Tacotron2", "WaveGlow"]


def test_a_card_of_nvidia_has_the_name_that_its_program_tells(tmp_path, monkeypatch):
    program = '#!/bin/bash\n[[ "$*" == "--query-gpu=name --format=csv,noheader -i 2" ]] && echo "H100 "\n'
    write_programs(tmp_path, {"nvidia-smi": program})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [hardware_names.cuda_card_name(number) for number in (2, 0)] == ["H100, card 2", "CUDA, card 0"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("processor\t: 0\nmodel name\t: A CPU @ 2 GHz \nmodel name\t: B\n", "A CPU @ 2 GHz"), ("processor : 0\n", "arm")],
)
def test_a_processor_has_the_name_that_linux_tells(monkeypatch, text, name):
    """Or what Python knows of it."""
    monkeypatch.setattr(hardware_names.Path, "read_text", lambda path, **_: text)
    monkeypatch.setattr(hardware_names.platform, "processor", lambda: "arm")
    assert hardware_names.processor_name() == name


@pytest.mark.parametrize("kind", [EngineSynthesizer, EngineVocoder])
def test_who_serves_gets_the_share_of_the_cores_that_he_asks_for(monkeypatch, kind):
    shares = []

    class Engine:
        device_name = "a card"

        def __init__(self, *told):
            shares.append(told)

        def load(self, path, graph, contents):
            return SimpleNamespace()

    for module in ("synthesizer", "vocoder"):
        monkeypatch.setattr(f"tools.deploy.infer_python.{module}.find_engine", lambda name: Engine)
    contents = replace(raw(), options={"a": 1})
    kind(models_dir() / "onnx", contents, shares=4)
    assert shares == [(0, 4, {"a": 1})]
