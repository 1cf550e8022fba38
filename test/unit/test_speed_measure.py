"""tools/benchmark.py: which job is made for what, how it is timed, and NVIDIA's as they do them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peer_stubs import WAVEGLOW_METHODS

from common.program import UserError
from runs import CPU
from tools.speed import examples, jobs, measure, peers
from tools.speed.jobs import DATA, JOBS, Job
from tools.speed.measure import LOADING, NVIDIA, NVIDIA_EXAMPLES, ONNX_RUNTIME, OURS, PEAK, PYTORCH

FOLDER = Path("folder")


@pytest.mark.parametrize(
    ("job", "implementation", "precision", "made"),
    [
        ("waveglow-train", OURS, "half", ("ours", CPU, "half", 4)),
        ("waveglow-train", LOADING, "float32", ("data",)),
        (PEAK, PYTORCH, "half", ("matrix", CPU, "half")),
        ("waveglow-train", NVIDIA, "half", ("nvidia_waveglow", FOLDER, CPU, True, "half", 4)),
        ("waveglow-infer", NVIDIA, "float32", ("nvidia_waveglow", FOLDER, CPU, False, "float32", 4)),
        ("tacotron2-infer", NVIDIA, "float32", ("nvidia_tacotron2", FOLDER, CPU, False, "float32", 4)),
        ("waveglow-train", NVIDIA_EXAMPLES, "half", ("examples_waveglow", FOLDER, CPU, True, "half", 4)),
        ("tacotron2-infer", NVIDIA_EXAMPLES, "float32", ("examples_tacotron2", FOLDER, CPU, False, "float32", 4)),
        ("waveglow-infer", ONNX_RUNTIME, "float32", ("onnxruntime_waveglow", FOLDER, "force_float32")),
        ("tacotron2-infer", ONNX_RUNTIME, "int8", ("onnxruntime_tacotron2", FOLDER, "int8")),
    ],
)
def test_what_does_which_job(monkeypatch, job, implementation, precision, made):
    for name in ("nvidia_waveglow", "nvidia_tacotron2", "onnxruntime_waveglow", "onnxruntime_tacotron2"):
        monkeypatch.setattr(peers, name, lambda *given, name=name: (name, *given))
    for name in ("examples_waveglow", "examples_tacotron2"):
        monkeypatch.setattr(examples, name, lambda *given, name=name: (name, *given))
    monkeypatch.setitem(JOBS, job, lambda *given: ("ours", *given))
    monkeypatch.setitem(DATA, job, lambda: ("data",))
    monkeypatch.setattr(measure, "matrix_product", lambda *given: ("matrix", *given))
    assert measure.make_job(job, implementation, precision, 4, CPU, FOLDER) == made


@pytest.mark.parametrize(("precision", "dtype"), [
    ("float32", torch.float32), ("tf32", torch.float32), ("half", torch.bfloat16), ("bf16", torch.bfloat16),
])  # fmt: skip
@pytest.mark.parametrize(("kind", "size"), [("cpu", 2048), ("cuda", 8192)])
def test_the_peak_is_a_product_of_large_matrices(monkeypatch, precision, dtype, kind, size):
    given = []
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda rows, columns, device: given.append((rows, columns)) or real(2, 2))
    monkeypatch.setattr(measure, "constant_linear", lambda x: lambda y: (given.append((x, y)), x @ y)[1])
    job = measure.matrix_product(replace(CPU, type=kind), precision)
    assert job.units == 2 * size**3
    job.work()
    shape, (x, y) = given
    assert shape == (size, size) and x is y and x.dtype == dtype


def test_seconds_are_those_of_each_repeat(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 13.0])
    did = []
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(measure, "peak_memory", lambda device: 9)
    found = measure.time_job(Job(lambda: did.append(1), 5), CPU, 2)
    assert (found, len(did)) == ({"units": 5, "seconds": [1.0, 3.0], "peak_memory": 9}, 4)


@pytest.mark.parametrize("implementation", [OURS, NVIDIA, ONNX_RUNTIME, LOADING, PYTORCH])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "half", "half, recomputed", "int8"])
def test_operations_are_counted_of_ours_where_that_is_what_the_job_needs(implementation, precision):
    counted = implementation == OURS and precision in ("float32", "tf32", "bf16", "half")
    assert measure.is_counted(implementation, precision) == counted


@pytest.mark.parametrize(
    ("precision", "set_to"),
    [("float32", ["exact"]), ("tf32", [("tf32", True)]), ("half", [("tf32", False)]), ("bf16", [("tf32", False)])],
)
def test_products_are_exact_or_not_behind_the_making_of_the_model(monkeypatch, precision, set_to):
    """Which may ask for exact ones itself. The memory is its own from there on, and its weights are the same."""
    did, halves = [], []

    def make(job, implementation, precision, batch, device, folder):
        did.append("make")
        halves.append(device.half)
        drawn = torch.rand(2)
        assert len(halves) > 1 or torch.equal(drawn, torch.manual_seed(0) and torch.rand(2))
        return f"job in {precision}"

    monkeypatch.setattr(measure, "reset_peak_memory", lambda device: did.append("reset"))
    monkeypatch.setattr(measure, "make_job", make)
    monkeypatch.setattr(jobs, "use_exact_float32", lambda device: did.append("exact"))
    monkeypatch.setattr(jobs, "use_tf32", lambda device, products: did.append(("tf32", products)))
    monkeypatch.setattr(measure, "time_job", lambda job, device, repeats: did.append(repeats) or {"units": 3})
    monkeypatch.setattr(measure, "count_operations", lambda job: 11 if job == "job in float32" else 22)
    device = replace(CPU, half=torch.float16)
    found = measure.measured("waveglow-train", OURS, precision, 2, device, FOLDER, 4)
    assert found == {"units": 3, "operations": 11}
    again = precision != "float32"  # to count operations
    assert did == ["reset", "make", *set_to, 4, *["make"] * again]
    assert halves == [torch.bfloat16 if precision == "bf16" else torch.float16] * (1 + again)
    assert measure.measured("waveglow-train", NVIDIA, precision, 2, device, FOLDER, 4)["operations"] == 0


def test_as_a_program_it_reads_and_writes_json(monkeypatch, capsys):
    asked = {"job": "a", "device": "cpu", "folder": "x y", "repeats": 2}
    monkeypatch.setattr(sys, "argv", ["measure", json.dumps(asked)])
    monkeypatch.setattr(measure, "measured", lambda **given: {"units": 1, "given": sorted(map(str, given.values()))})
    measure.main()
    found = json.loads(capsys.readouterr().out)
    assert found["given"] == sorted(["a", str(CPU), "x y", "2"])


# ---- NVIDIA's ----

GLOW = f"""
import torch
asked = []

class WaveGlow(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        asked.append(sizes)
{WAVEGLOW_METHODS}    def infer(self, mel, sigma):
        asked.append((mel.shape, sigma, self.training, torch.is_grad_enabled(), hasattr(torch.cuda, "FloatTensor")))
        return torch.zeros(len(mel), mel.shape[2] * 256)

class WaveGlowLoss:
    def __init__(self, sigma):
        asked.append(("loss", sigma))
    def __call__(self, outputs):
        return 3 * outputs
"""
MODEL = """
import torch
asked = []

class Tacotron2(torch.nn.Module):
    def __init__(self, sizes):
        super().__init__()
        asked.append(vars(sizes))
        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, inputs):
        asked.append(inputs)
        return self.weight
    def inference(self, text):
        asked.append((text, self.training, torch.is_grad_enabled()))
        return None, torch.zeros(1, 80, 200), None, None
"""
LOSS = """
asked = []

class Tacotron2Loss:
    def __call__(self, outputs, targets):
        asked.append(targets)
        return (2 * outputs).sum()
"""


@pytest.fixture
def checkouts(tmp_path, monkeypatch):
    """NVIDIA's two, of toys; their modules by name."""
    for name, text in (("waveglow/glow.py", GLOW), ("tacotron2/model.py", MODEL), ("tacotron2/loss_function.py", LOSS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in ("glow", "model", "loss_function"):
        sys.modules.pop(name, None)


def test_nvidia_s_waveglow_trains(checkouts):
    job = peers.nvidia_waveglow(checkouts, CPU, True, "float32", 2)
    asked = sys.modules["glow"].asked
    sizes = asked[0]
    assert (sizes["n_flows"], sizes["n_group"], sizes["WN_config"]["n_channels"]) == (12, 8, 256)
    assert sizes.keys() == {"n_mel_channels", "n_flows", "n_group", "n_early_every", "n_early_size", "WN_config"}
    assert asked[1] == ("loss", 1.0)
    first, second = job.work(), job.work()
    assert asked[2:] == [((2, 80, 32), (2, 8000))] * 2
    assert first != second and job.units == 16000  # the optimizer's step


def test_nvidia_s_waveglow_infers(checkouts):
    had = hasattr(torch.cuda, "FloatTensor")
    job = peers.nvidia_waveglow(checkouts, CPU, False, "float32", 2)
    assert job.work().shape == (2, 25600) and job.units == 51200
    assert sys.modules["glow"].asked[1:] == ["fused", ((2, 80, 100), 0.6, False, False, True)]
    assert hasattr(torch.cuda, "FloatTensor") == had


def test_nvidia_s_tacotron2_trains(checkouts):
    job = peers.nvidia_tacotron2(checkouts, CPU, True, "float32", 3)
    first, second = job.work(), job.work()
    assert first == 2 and second == pytest.approx(2 - 2e-4)  # the optimizer's step: Adam's, at a rate of 1e-4
    asked = sys.modules["model"].asked
    assert (asked[0]["max_decoder_steps"], asked[0]["gate_threshold"], asked[0]["fp16_run"]) == (200, 1.0, False)
    text, text_lengths, mel, longest, mel_lengths = asked[1]
    assert (text.shape, mel.shape, longest) == ((3, 150), (3, 80, 870), 150)
    assert text_lengths.tolist() == [150, 105, 60] and mel_lengths.tolist() == [870, 610, 350]
    assert job.units == 870 + 610 + 350
    target, gate = sys.modules["loss_function"].asked[0]
    assert target is mel
    for row, length in zip(gate, mel_lengths, strict=True):  # from the last frame on
        assert row.tolist() == [0.0] * (int(length) - 1) + [1.0] * (870 - int(length) + 1)
    mask = sys.modules["model"].get_mask_from_lengths(torch.tensor([3, 1]))
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_nvidia_s_tacotron2_speaks_one_text(checkouts):
    job = peers.nvidia_tacotron2(checkouts, CPU, False, "float32", 8)
    assert job.work().shape == (1, 80, 200) and job.units == 200
    text, training, has_gradients = sys.modules["model"].asked[1]
    assert (text.shape, training, has_gradients) == ((1, 128), False, False)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("half", torch.bfloat16)])
def test_half_precision_is_the_device_s(precision, dtype):
    with peers.autocast_of(CPU, precision)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_gradients_of_a_step_are_clipped_and_begin_anew():
    model = torch.nn.Linear(1, 1, bias=False)
    norms = []
    step = peers.training_step(model, lambda: 100 * model.weight.sum(), peers.autocast_of(CPU, "float32"))
    for _ in range(2):
        step()
        norms.append(model.weight.grad.norm().item())
    assert norms == pytest.approx([1, 1], rel=1e-4)
    assert step() == pytest.approx(100 * model.weight.item() + 0.01, rel=1e-4)
    step = peers.training_step(model, lambda: 0.25 * model.weight.sum(), peers.autocast_of(CPU, "float32"))
    for _ in range(2):
        step()
        assert model.weight.grad.item() == 0.25


def test_a_checkout_that_cannot_be_imported(tmp_path, checkouts):
    (tmp_path / "waveglow/glow.py").write_text("import no_such_thing")
    with pytest.raises(UserError, match=r"waveglow/glow\.py: No module named 'no_such_thing'"):
        peers.nvidia_waveglow(tmp_path, CPU, True, "float32", 2)


def test_a_gate_that_ends_the_speech_is_told(monkeypatch):
    def load(graph, models_dir, quant_mode):
        made = {"encoder": {"memory": 1, "processed_memory": 2}, "decoder": {"mel_lengths": [199], "mel_outputs": 3}}
        config = SimpleNamespace(tacotron2=SimpleNamespace(tacotron2_config=SimpleNamespace(prenet_dim=4)))
        return SimpleNamespace(run=lambda given: made[graph], fetch=lambda value: value), config

    monkeypatch.setattr(peers, "_load", load)
    with pytest.raises(RuntimeError, match="the gate ended the speech after 199 frames, and 200 were to be timed"):
        peers.onnxruntime_tacotron2(FOLDER, "int8").work()


@pytest.mark.parametrize(("kind", "patched"), [("cpu", True), ("npu", True), ("cuda", False)])
def test_nvidia_s_noise_is_of_a_tensor_that_is_there(monkeypatch, kind, patched):
    monkeypatch.setattr(torch.cuda, "FloatTensor", "a card's", raising=False)
    with peers._cuda_tensors_on(replace(CPU, type=kind)):
        assert (torch.cuda.FloatTensor is torch.FloatTensor) == patched
    assert torch.cuda.FloatTensor == "a card's"
