"""Which card is taken, what is asked of it by name, which CANN is found; by stand-ins for torch.npu and torch.cuda."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common import device as devices
from common.device import pick_device
from common.program import UserError
from conftest import ROOT

CPU = pick_device("cpu")


class Cards:
    """Stands in for torch.npu or torch.cuda; ``asked`` has what was asked for."""

    def __init__(self, count, is_available=True):
        self.count, self.available, self.asked, self.capabilities = count, is_available, [], {}

    def is_available(self):
        return self.available

    def device_count(self):
        return self.count

    def set_device(self, index):
        self.asked.append(("set", index))

    def get_device_capability(self, index):
        return self.capabilities.get(index, (7, 0))

    def get_device_name(self, card):
        return f"name of {card}"

    def max_memory_allocated(self, card):
        return f"peak of {card}"

    def empty_cache(self):
        self.asked.append("empty")

    def reset_peak_memory_stats(self, card):
        self.asked.append(("reset", card))


@pytest.fixture
def cards(monkeypatch):
    """A machine with such cards of each kind."""

    def have(npus=0, cudas=0):
        found = SimpleNamespace(npu=Cards(npus, npus > 0), cuda=Cards(cudas, cudas > 0))
        monkeypatch.setattr(torch, "npu", found.npu, raising=False)
        monkeypatch.setattr(torch, "cuda", found.cuda)
        monkeypatch.setattr(torch, "device", lambda *which: ":".join(map(str, which)))
        return found

    return have


def test_a_card_is_a_device_of_torch(monkeypatch):
    monkeypatch.setattr(torch, "cuda", Cards(2))
    assert pick_device("cuda", 1).torch_device == torch.device("cuda", 1)
    assert pick_device("cpu", 1).torch_device == torch.device("cpu")


NO_NPU, NO_CUDA = "no NPU is visible to torch_npu", "no CUDA card is visible to PyTorch"


@pytest.mark.parametrize(
    ("npus", "cudas", "wanted", "index", "card", "why"),
    [
        (2, 2, "auto", 1, "npu:1", "the first choice"), (0, 2, "auto", 1, "cuda:1", NO_NPU),
        (0, 0, "auto", 0, "cpu", f"{NO_NPU}; {NO_CUDA}"), (0, 0, "auto", 9, "cpu", f"{NO_NPU}; {NO_CUDA}"),
        (2, 2, "npu", 0, "npu:0", "as asked"), (2, 2, "cuda", 1, "cuda:1", "as asked"),
        (2, 2, "cpu", 5, "cpu", "as asked"),
    ],
)  # fmt: skip
def test_of_npu_cuda_and_cpu_the_first_that_is_there_is_taken_or_the_one_asked_for(
    cards, npus, cudas, wanted, index, card, why
):
    found = cards(npus, cudas)
    picked = pick_device(wanted, index)
    kind = card.partition(":")[0]
    assert (picked.torch_device, picked.type, picked.why) == (card, kind, why)
    assert (picked.backend, picked.amp) == {"npu": ("hccl", "O2"), "cuda": ("nccl", "O1"), "cpu": ("gloo", "O0")}[kind]
    assert found.npu.asked == [("set", index)] * (kind == "npu")
    assert found.cuda.asked == [("set", index)] * (kind == "cuda")


@pytest.mark.parametrize(
    ("npus", "cudas", "wanted", "index", "says"),
    [
        (0, 2, "npu", 0, f"--device=npu: {NO_NPU}; --device=auto takes what is there"),
        (2, 0, "cuda", 0, f"--device=cuda: {NO_CUDA}; --device=auto takes what is there"),
        (2, 2, "npu", 2, "npu card 2 was asked for, but this machine has 2: start fewer processes (--nproc) or choose"
                         " another --device_id"),
        (0, 2, "cuda", 2, "cuda card 2 was asked for, but this machine has 2: start fewer processes (--nproc) or choose"
                          " another --device_id"),
        (1, 2, "auto", 1, "npu card 1 was asked for, but this machine has 1: start fewer processes (--nproc) or choose"
                          " another --device_id"),
        (1, 1, "gpu", 0, "--device is 'gpu', must be auto, npu, cuda, cpu"),
        (1, 1, "", 0, "--device is '', must be auto, npu, cuda, cpu"),
    ],
)  # fmt: skip
def test_a_card_that_is_not_there_is_refused(cards, npus, cudas, wanted, index, says):
    found = cards(npus, cudas)
    with pytest.raises(UserError) as caught:
        pick_device(wanted, index)
    assert str(caught.value) == says
    assert found.npu.asked == found.cuda.asked == []


def test_the_half_precision_is_that_of_the_card_itself(cards):
    found = cards(cudas=2)
    found.cuda.capabilities = {1: (8, 0)}
    assert [pick_device("cuda", index).half for index in (0, 1)] == [torch.float16, torch.bfloat16]


@pytest.mark.parametrize(("capability", "half"), [((8, 0), "bfloat16"), ((7, 9), "float16"), ((12, 0), "bfloat16")])
def test_half_precision_is_the_device_s(monkeypatch, capability, half):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    assert pick_device("cuda").half == getattr(torch, half)
    assert CPU.half == torch.bfloat16
    npu = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, set_device=lambda index: None)
    monkeypatch.setattr(torch, "npu", npu, raising=False)
    monkeypatch.setattr(torch, "device", lambda *args: args)  # which knows "npu" only with torch_npu
    assert pick_device("npu").half == torch.float16


@pytest.mark.parametrize("kind", ["npu", "cuda"])
def test_names_and_memory_are_those_of_this_process_s_card(cards, kind):
    found = cards(2, 2)
    picked = pick_device(kind, 1)
    assert devices.card_name(picked) == f"name of {kind}:1"
    assert devices.peak_memory(picked) == f"peak of {kind}:1"
    module = getattr(found, kind)
    module.asked.clear()
    devices.reset_peak_memory(picked)
    assert module.asked == ["empty", ("reset", f"{kind}:1")]


@pytest.mark.parametrize(
    ("kind", "has", "is_npu_s"), [("npu", True, True), ("npu", False, False), ("cuda", True, False)]
)
def test_the_profiler_is_torch_npu_s_where_it_has_one(monkeypatch, kind, has, is_npu_s):
    own = SimpleNamespace()
    package = SimpleNamespace(__path__=[], __spec__=None)
    monkeypatch.setitem(sys.modules, "torch_npu", package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "torch_npu" or (has and "profiler" in name))
    monkeypatch.setitem(sys.modules, "torch_npu.profiler", own)
    found = devices.profiler_module(replace(CPU, type=kind))
    assert found is (own if is_npu_s else torch.profiler)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.9.0.post2", True), ("2.9.1", True), ("2.8.0", False), ("1.9.0", False), ("2.91.0", False), (None, True)],
)
def test_the_first_two_numbers_of_torch_npu_are_those_of_torch(monkeypatch, version, fits):
    def find(name):
        assert name == "torch-npu"
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(devices.importlib.metadata, "version", find)
    monkeypatch.setattr(torch, "__version__", "2.9.0+cpu")
    monkeypatch.setattr(devices, "cann_version", lambda: None)
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    monkeypatch.delattr(torch, "npu", raising=False)
    with pytest.raises(UserError) as caught:
        pick_device("npu")
    expected = f"torch_npu {version} does not fit torch 2.9.0+cpu: their first two numbers must be the same"
    assert (expected in str(caught.value)) != fits and ("is not installed" in str(caught.value)) == fits


@pytest.fixture
def bare(monkeypatch):
    """A machine without cards; CUDA can be added."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    monkeypatch.delattr(torch, "npu", raising=False)
    return monkeypatch


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_torch_npu_that_does_not_load_is_said_with_the_reason(bare, error, tmp_path):
    """torch_npu without CANN, or beside CUDA."""
    bare.delitem(sys.modules, "torch_npu")
    (tmp_path / "torch_npu.py").write_text(f"raise {error.__name__}('libhccl.so: cannot open')")
    bare.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"torch_npu does not load \(libhccl.so.*env_npu.sh"):
        pick_device("npu")


@pytest.fixture
def torch_npu_that_fails(bare, tmp_path):
    """Installed, and not to be loaded."""
    bare.delitem(sys.modules, "torch_npu")
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libtorch_npu.so: undefined symbol')")
    bare.syspath_prepend(tmp_path)
    return bare


def test_a_cann_that_is_too_old_is_said_with_the_versions(torch_npu_that_fails):
    torch_npu_that_fails.setattr(devices, "cann_version", lambda: (5, 0))
    with pytest.raises(UserError, match=r"^--device=npu: CANN 5.0 is too old: PyTorch 2.1, .* needs CANN 7.0 or later"):
        pick_device("npu")
    torch_npu_that_fails.setattr(devices, "cann_version", lambda: (7, 0))
    with pytest.raises(UserError, match="torch_npu does not load"):
        pick_device("npu")


def test_an_old_cann_is_said_before_that_torch_npu_is_missing(bare):
    bare.setattr(devices, "cann_version", lambda: (5, 1))
    with pytest.raises(UserError, match=r"CANN 5.1 is too old"):
        pick_device("npu")


@pytest.mark.parametrize(
    ("program", "version", "message"),
    [
        (
            ["-m", "waveglow.train", "--data_path=x"],
            torch.__version__,
            "torch_npu does not load (libhccl.so: cannot open)",
        ),
        (["tools/synthesize.py", "A text."], "1.11.0", "torch_npu 1.11.0 does not fit torch"),
    ],
)
def test_a_torch_npu_that_torch_would_load_by_itself_is_said_in_one_line(program, version, message, tmp_path):
    """As PyTorch 2.5 and later do, where it is installed."""
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open')")
    package = tmp_path / f"torch_npu-{version}.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch-npu\nVersion: {version}\n")
    (package / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    options = ["--device=npu", f"--output{'_directory' if program[0] == '-m' else ''}={tmp_path}/out"]
    done = subprocess.run(
        [sys.executable, *program, *options], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --device=npu: {message}")


def test_a_card_that_another_process_has_is_said(bare):
    said = []

    def fail(index):
        raise RuntimeError(said[-1])

    npu = SimpleNamespace(is_available=lambda: True, device_count=lambda: 8, set_device=fail)
    bare.setattr(torch, "npu", npu, raising=False)
    said.append("SetDevice failed\nEL0005: [PID: 7] The resources are busy.")
    with pytest.raises(UserError, match=r"^npu card 3 is taken by another process .* choose another --device_id$"):
        pick_device("npu", 3)
    said.append("507899: driver error")
    with pytest.raises(RuntimeError, match="507899"):
        pick_device("npu", 3)


# ---- CANN ----


@pytest.fixture
def cann(monkeypatch, tmp_path):
    """Installs one of this version in a folder; which version is found."""
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "CANN_ROOT", tmp_path / "root")

    def install(folder, version, file="version.cfg"):
        path = tmp_path / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"version={version}\n")

    return install


def test_the_newest_layout_of_cann_comes_first(cann):
    assert devices.cann_version() is None
    for folder, version in (("nnae/latest", "5.1"), ("ascend-toolkit/latest", "7.0"), ("cann", "8.5")):
        cann(f"root/{folder}", version)
        assert ".".join(map(str, devices.cann_version())) == version


def test_variables_go_before_what_lies_there(cann, monkeypatch, tmp_path):
    """And where they lead to none, no other is taken for it."""
    cann("root/cann", "8.5")
    for name, version in (("ASCEND_HOME_PATH", "8.1"), ("ASCEND_TOOLKIT_HOME", "8.2")):
        cann(name, version)
        monkeypatch.setenv(name, str(tmp_path / name))
        assert devices.cann_version() == (8, int(version[2:]))
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", "")
    assert devices.cann_version() == (8, 1)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path / "nowhere"))
    assert devices.cann_version() is None


def test_of_several_notes_the_first_that_can_be_read_counts(cann, tmp_path):
    cann("root/cann", "8.1", file="version.cfg")
    cann("root/cann", "8.2", file="ascend_toolkit_install.info")
    assert devices.cann_version() == (8, 2)
    cann("root/cann", "8.4", file="b/ascend_toolkit_install.info")
    cann("root/cann", "8.3", file="a/ascend_toolkit_install.info")
    assert devices.cann_version() == (8, 3)
    note = tmp_path / "root/cann/a/ascend_toolkit_install.info"
    note.unlink()
    note.mkdir()  # no file
    assert devices.cann_version() == (8, 4)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("8.1.RC1", (8, 1)), ("[5.0.3.1:5.0.3]", (5, 0)), ("[10.22.3:11.20]", (11, 20)), ("12.0", (12, 0)),
        ("eight", None), ("8", None),
    ],
)  # fmt: skip
def test_a_version_of_cann_is_read_in_each_of_its_forms(cann, text, version):
    cann("root/cann", text)
    assert devices.cann_version() == version
