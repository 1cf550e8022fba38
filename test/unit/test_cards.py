"""What is asked of a card, and what is not: stand-ins for torch.npu, torch_npu and torch.cuda note it."""

import logging
import platform
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.optim.optimizer as torch_optimizer

from common import device as devices
from common.adam import count_steps, has_foreach, make_adam
from common.device import pick_device
from common.random_numbers import own_random_numbers, rng_state, set_rng_state
from conftest import ROOT
from runs import torch_version

CPU = pick_device("cpu")
NPU, CUDA = (replace(CPU, type=kind) for kind in ("npu", "cuda"))
KINDS = {"npu": NPU, "cuda": CUDA}


@pytest.fixture(params=KINDS)
def card(request, monkeypatch):
    """A card with random numbers of its own."""
    generator = torch.Generator()
    if request.param == "npu":
        monkeypatch.setattr(torch, "npu", SimpleNamespace(), raising=False)
    module = getattr(torch, request.param)
    monkeypatch.setattr(module, "get_rng_state", generator.get_state, raising=False)
    monkeypatch.setattr(module, "set_rng_state", generator.set_state, raising=False)
    return SimpleNamespace(kind=request.param, generator=generator)


def test_random_states_of_the_card_are_given_and_restored(card):
    device = KINDS[card.kind]
    state = rng_state(device)
    drawn = torch.rand(3), torch.rand(3, generator=card.generator)
    set_rng_state(state, device)
    assert torch.equal(torch.rand(3), drawn[0])
    assert torch.equal(torch.rand(3, generator=card.generator), drawn[1])


def test_random_states_of_another_kind_of_device_are_ignored(card):
    on_cpu, on_card = rng_state(CPU), rng_state(KINDS[card.kind])
    assert on_cpu.keys() == {"cpu"} and on_card.keys() == {"cpu", card.kind}
    before = card.generator.get_state()
    set_rng_state(on_card, CPU)
    set_rng_state(on_cpu, KINDS[card.kind])
    assert torch.equal(card.generator.get_state(), before)


def test_own_random_numbers_leave_those_outside_alone(card):
    """On the card, too, also where what is inside fails; those inside follow from the seed."""
    device, inside = KINDS[card.kind], []
    state = rng_state(device)
    for seed in (1, 1, 2):
        with pytest.raises(KeyError), own_random_numbers(seed, device):
            inside.append(torch.rand(1).item())
            torch.rand(1, generator=card.generator)
            raise KeyError
    assert inside[0] == inside[1] != inside[2]
    assert all(torch.equal(state[name], now) for name, now in rng_state(device).items())


@pytest.mark.parametrize("under_apex", [False, True])
def test_an_npu_gets_its_fused_adam(monkeypatch, caplog, under_apex):
    """torch_npu's, but apex's under apex.amp, and neither where it is not there."""
    caplog.set_level(logging.INFO)
    made = []
    for name in ("torch_npu.optim", "apex.optimizers"):
        module = SimpleNamespace(NpuFusedAdam=lambda params, name=name, **options: made.append((name, params, options)))
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(sys.modules, name.partition(".")[0], SimpleNamespace())
    weight = torch.nn.Parameter(torch.ones(1))
    make_adam([weight], 0.25, NPU, 0.5, under_apex=under_apex)
    make_adam(iter([weight]), 0.25, NPU, under_apex=under_apex)
    name = "apex.optimizers" if under_apex else "torch_npu.optim"
    assert made == [(name, [weight], {"lr": 0.25, "weight_decay": decay}) for decay in (0.5, 0.0)]
    assert f"optimizer: NpuFusedAdam of {name}" in caplog.text


def test_an_npu_without_torch_npu_s_optimizer_gets_the_plain_one(monkeypatch, caplog):
    """torch's, without operators on lists, which the card lacks; and that is said."""
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = make_adam(iter([weight]), 0.25, NPU, 0.5)
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["params"], group["lr"], group["weight_decay"], group["foreach"]) == ([weight], 0.25, 0.5, False)
    assert "optimizer: torch's plain Adam, not NpuFusedAdam of torch_npu.optim (" in caplog.text


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_cuda_and_cpu_get_torchs_fused_adam_or_else_the_one_on_lists(monkeypatch, caplog, device):
    """With the same settings; a torch before 2.4 has no fused one for CPUs, and says so."""
    caplog.set_level(logging.INFO)
    made, weight = [], torch.nn.Parameter(torch.ones(1))

    def adam(params, **options):
        made.append((params, options))
        if "fused" in options and len(made) > 1:
            raise RuntimeError("`fused=True` requires all params to be on a card\nand more")
        return "an optimizer"

    monkeypatch.setattr(torch.optim, "Adam", adam)
    settings = {"lr": 0.25, "weight_decay": 0.5}
    for _ in range(2):
        assert make_adam(iter([weight]), 0.25, device, 0.5) == "an optimizer"
    fused = ([weight], settings | {"fused": True})
    assert made == [fused, fused, ([weight], settings | {"foreach": True})]
    assert caplog.messages == [
        "optimizer: torch's fused Adam",
        "optimizer: torch's foreach Adam, not torch's fused Adam (`fused=True` requires all params to be on a card)",
    ]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_of_the_device_is_adam(caplog, decay):
    """20 steps beside PyTorch's plain Adam; which one it is, is said."""
    caplog.set_level(logging.INFO)
    ours, plain = (torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    optimizers = (
        make_adam([ours], 1e-2, CPU, weight_decay=decay),
        torch.optim.Adam([plain], lr=1e-2, weight_decay=decay, foreach=False),
    )
    for _ in range(20):
        for parameter, optimizer in zip((ours, plain), optimizers):
            optimizer.zero_grad()
            (parameter**3 - parameter).sum().backward()
            optimizer.step()
    assert (ours - plain).abs().max() < 1e-6
    kind = "fused" if torch_version() >= (2, 4) else "foreach"
    assert f"optimizer: torch's {kind} Adam" in caplog.text


def test_operators_on_lists_are_used_where_torch_npu_says_so(monkeypatch):
    assert has_foreach(CPU) and has_foreach(CUDA)
    for supported, has in ((["cuda", "npu"], True), (["cuda"], False)):
        monkeypatch.setattr(torch_optimizer, "_get_foreach_kernels_supported_devices", lambda s=supported: s)
        assert has_foreach(NPU) == has and has_foreach(CPU)
    monkeypatch.delattr(torch_optimizer, "_get_foreach_kernels_supported_devices")  # older PyTorch
    assert has_foreach(CPU) and not has_foreach(NPU)


@pytest.mark.parametrize("kind", ["Adam", "NpuFusedAdam"])
def test_only_torch_npu_s_adam_counts_in_plain_numbers(kind):
    """It adds to the count in place, twice to the first one: as a tensor it would be one for all."""
    optimizer = type(kind, (torch.optim.Adam,), {})([torch.nn.Parameter(torch.ones(1)) for _ in range(2)])
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["step"] = torch.tensor(7.0)
    count_steps(optimizer)
    steps = [state["step"] for state in optimizer.state.values()]
    assert steps == [7, 7]
    assert {type(step) for step in steps} == {int if kind == "NpuFusedAdam" else torch.Tensor}


def test_float32_is_exact_unless_asked_otherwise(monkeypatch):
    """HF32 off on an NPU, as far as its release has it; TF32 on for convolutions, and for products where asked."""
    npu = SimpleNamespace(conv=SimpleNamespace(allow_hf32=True), matmul=SimpleNamespace(allow_hf32=True))
    monkeypatch.setattr(torch, "npu", npu, raising=False)
    cudnn, products = torch.backends.cudnn, SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", products)
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    devices.use_exact_float32(NPU)
    assert (npu.conv.allow_hf32, npu.matmul.allow_hf32) == (False, False)
    monkeypatch.setattr(torch, "npu", SimpleNamespace())
    devices.use_exact_float32(NPU)
    devices.use_exact_float32(CPU)
    assert (cudnn.allow_tf32, products.allow_tf32) == (True, True)
    devices.use_exact_float32(CUDA)
    assert (cudnn.allow_tf32, products.allow_tf32) == (False, False)
    for device, options, expected in (
        (CPU, {}, (False, False)), (NPU, {}, (False, False)), (CUDA, {}, (True, True)),
        (CUDA, {"products": False}, (True, False)),
    ):  # fmt: skip
        cudnn.allow_tf32 = products.allow_tf32 = False
        devices.use_tf32(device, **options)
        assert (cudnn.allow_tf32, products.allow_tf32) == expected


def test_names_and_memory_are_those_of_the_card(monkeypatch):
    asked = []
    stand_in = SimpleNamespace(
        get_device_name=lambda card: "Famous 9000",
        max_memory_allocated=lambda card: 5,
        empty_cache=lambda: asked.append("empty"),
        reset_peak_memory_stats=lambda card: asked.append("reset"),
        set_compile_mode=lambda jit_compile: asked.append(jit_compile),
    )
    monkeypatch.setattr(torch, "npu", stand_in, raising=False)
    assert (devices.card_name(NPU), devices.peak_memory(NPU)) == ("Famous 9000", 5)
    assert devices.card_name(CPU) == ""
    for device in (NPU, CPU):
        devices.reset_peak_memory(device)
        for wanted in (True, False):
            devices.set_jit_compile(device, wanted)
    assert asked == ["empty", "reset", True, False]


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_peak_of_a_process_is_in_bytes(monkeypatch, platform, unit):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(devices.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=7))
    assert devices.peak_memory(CPU) == 7 * unit


@pytest.mark.parametrize("largest", [2**30, 2**25, 0])
def test_freed_memory_is_kept_as_far_as_glibc_can(monkeypatch, largest):
    """By M_MMAP_THRESHOLD (-3) and M_TRIM_THRESHOLD (-1) of its malloc.h; by both or by none."""
    taken = {}

    def mallopt(option, value):
        fits = value <= (largest if option == -3 else 2**31 - 1)
        taken.update({option: value} if fits else {})
        return fits

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    for device in (NPU, CUDA):
        devices.keep_freed_memory(device)
    assert taken == {}
    devices.keep_freed_memory(CPU)
    assert taken == ({-3: largest, -1: 2**31 - 1} if largest else {})
    for missing in (SimpleNamespace(), None):
        monkeypatch.setattr(devices.ctypes, "CDLL", lambda name, missing=missing: missing)
        devices.keep_freed_memory(CPU)


FREED_AND_TAKEN_AGAIN = """
import resource, sys
import torch
from common.device import keep_freed_memory, pick_device
if sys.argv[1] == "keep":
    keep_freed_memory(pick_device("cpu"))
for i in range(20):
    if i == 10:  # by now there is as much as is ever needed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.ones(2**24)  # more than glibc ever keeps by itself
    del tensor
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.35"), reason="older ones, and others, keep less or nothing")
def test_freed_memory_is_kept():
    faults = {}
    for what in ("keep", "leave"):
        command = [sys.executable, "-c", FREED_AND_TAKEN_AGAIN, what]
        faults[what] = int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=500).stdout)
    assert faults["keep"] < faults["leave"] / 10
