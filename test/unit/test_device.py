"""Choosing the device: what is taken, and what is said where it is not there."""

import logging
import os
import platform
import re
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from common import device, distributed
from common.adam import make_adam
from common.device import pick_device, use_exact_float32
from common.launch import exit_code, first_failure
from common.program import UserError
from conftest import ROOT
from runs import torch_version


@pytest.fixture
def bare(monkeypatch):
    """A machine without cards; CUDA can be added."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    monkeypatch.delattr(torch, "npu", raising=False)
    return monkeypatch


def add_cuda(bare, cards):
    bare.setattr(torch.cuda, "is_available", lambda: True)
    bare.setattr(torch.cuda, "device_count", lambda: cards)
    bare.setattr(torch.cuda, "set_device", lambda index: None)
    bare.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))


def test_auto_ends_at_the_cpu_and_says_why(bare):
    device = pick_device("auto")
    assert (device.type, device.backend, device.amp) == ("cpu", "gloo", "O0")
    assert device.why == "torch_npu is not installed; no CUDA card is visible to PyTorch"


def test_bfloat16_is_taken_where_a_card_has_it(bare):
    add_cuda(bare, 1)
    assert pick_device("cuda").half == torch.bfloat16
    bare.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert pick_device("cuda").half == torch.float16


def test_auto_prefers_cuda_to_the_cpu_and_npu_to_cuda(bare):
    add_cuda(bare, 2)
    device = pick_device("auto", 1)
    assert (str(device.torch_device), device.backend, device.half, device.amp) == (
        "cuda:1",
        "nccl",
        torch.bfloat16,
        "O1",
    )
    npu = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 8, set_device=lambda index: None)
    bare.setattr(torch, "npu", npu, raising=False)
    # "npu" is a device name of PyTorch only once torch_npu has given it.
    bare.setattr(torch, "device", lambda *args: ":".join(map(str, args)))
    device = pick_device("auto", 3)
    assert (device.torch_device, device.backend, device.amp, device.why) == ("npu:3", "hccl", "O2", "the first choice")
    assert pick_device("cuda").type == "cuda"


def test_more_processes_than_cards(bare):
    add_cuda(bare, 2)
    with pytest.raises(UserError, match=r"cuda card 2 was asked for, but this machine has 2: start fewer processes"):
        pick_device("cuda", 2)


def test_what_is_not_there_is_said(bare):
    with pytest.raises(UserError, match="--device=cuda: no CUDA card is visible"):
        pick_device("cuda")
    with pytest.raises(UserError, match="--device=npu: torch_npu is not installed"):
        pick_device("npu")
    with pytest.raises(UserError, match="must be auto, npu, cuda, cpu"):
        pick_device("tpu")


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_an_npu_without_its_libraries(bare, error, tmp_path):
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
    torch_npu_that_fails.setattr(device, "cann_version", lambda: (5, 0))
    with pytest.raises(UserError, match=r"^--device=npu: CANN 5.0 is too old: PyTorch 2.1, .* needs CANN 7.0 or later"):
        pick_device("npu")
    torch_npu_that_fails.setattr(device, "cann_version", lambda: (7, 0))
    with pytest.raises(UserError, match="torch_npu does not load"):
        pick_device("npu")


def test_an_old_cann_is_said_before_that_torch_npu_is_missing(bare):
    bare.setattr(device, "cann_version", lambda: (5, 1))
    with pytest.raises(UserError, match=r"CANN 5.1 is too old"):
        pick_device("npu")


@pytest.mark.parametrize("version", ["1.11.0.post4", f"{torch.__version__.split('.')[0]}.0.1"])
def test_a_torch_npu_for_another_torch_is_said_with_the_versions(torch_npu_that_fails, version):
    torch_npu_that_fails.setattr(device.importlib.metadata, "version", lambda name: version)
    expected = re.escape(f"torch_npu {version} does not fit torch {torch.__version__}")
    with pytest.raises(UserError, match=expected):
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

    npu = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 8, set_device=fail)
    bare.setattr(torch, "npu", npu, raising=False)
    said.append("SetDevice failed\nEL0005: [PID: 7] The resources are busy.")
    with pytest.raises(UserError, match=r"^npu card 3 is taken by another process .* choose another --device_id$"):
        pick_device("npu", 3)
    said.append("507899: driver error")
    with pytest.raises(RuntimeError, match="507899"):
        pick_device("npu", 3)


def test_adam_of_the_device_is_adam():
    """20 steps beside PyTorch's plain Adam."""
    ours, plain = (torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    optimizers = make_adam([ours], 1e-2, pick_device("cpu")), torch.optim.Adam([plain], lr=1e-2, foreach=False)
    for _ in range(20):
        for parameter, optimizer in zip((ours, plain), optimizers):
            optimizer.zero_grad()
            (parameter**3 - parameter).sum().backward()
            optimizer.step()
    assert (ours - plain).abs().max() < 1e-6


def test_the_adam_is_said_and_decays_weights(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = make_adam([weight], 0.1, pick_device("cpu"), weight_decay=1e-6)
    weight.grad = torch.zeros(3)
    optimizer.step()
    assert (weight < 0.95).all()
    kind = "fused" if torch_version() >= (2, 4) else "foreach"
    assert f"optimizer: torch's {kind} Adam" in caplog.text

    class Older(torch.optim.Adam):
        def __init__(self, *args, fused=None, **kwargs):
            if fused:
                raise RuntimeError("`fused=True` requires all the params to be on supported devices")
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "Adam", Older)
    make_adam([weight], 0.1, pick_device("cpu"))
    assert "torch's foreach Adam, not torch's fused Adam (`fused=True` requires" in caplog.text


def test_hccl_waits_as_long_as_the_process_group(monkeypatch):
    """With or without env_npu.sh; what the user has set stays."""
    started = []
    monkeypatch.setattr(distributed, "_meet", lambda *_: dist.HashStore())
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout, **_: started.append((backend, timeout)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    connect, execute = distributed.HCCL_LIMITS
    monkeypatch.setenv(connect, "")
    monkeypatch.delenv(connect)
    monkeypatch.setenv(execute, "60")
    distributed.start(replace(pick_device("cpu"), backend="hccl"))
    seconds = str(int(distributed.TIMEOUT.total_seconds()))
    assert started == [("hccl", distributed.TIMEOUT)]
    assert (os.environ[connect], os.environ[execute]) == (seconds, "60")


@pytest.mark.parametrize(
    ("hang_limit", "seconds", "patience"),
    [(0, 1800, 1800), (10, 1800, 30), (60, 1800, 60), (7200, 7200, 7200), (30000, 30000, 30000)],
)
def test_no_wait_for_others_is_shorter_than_the_hang_limit(monkeypatch, hang_limit, seconds, patience):
    """At first they are waited for no longer than that, but until a line about it is due."""
    timeouts = []

    def meet(ours, facts, limit):
        assert limit == patience
        return types.SimpleNamespace(set_timeout=timeouts.append)

    monkeypatch.setattr(distributed, "_meet", meet)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout, **_: timeouts.append(timeout))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in distributed.HCCL_LIMITS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    distributed.start(replace(pick_device("cpu"), backend="hccl"), hang_limit)
    assert [timeout.total_seconds() for timeout in timeouts] == [seconds] * 2
    # CANN's documentation has no larger ones.
    assert {name: os.environ[name] for name in distributed.HCCL_LIMITS} == {
        "HCCL_CONNECT_TIMEOUT": str(min(seconds, 7200)), "HCCL_EXEC_TIMEOUT": str(min(seconds, 17340)),
    }  # fmt: skip


def failure(exitcode, **report):
    return types.SimpleNamespace(exitcode=exitcode, error_file_data=report, timestamp=1000)


def test_the_rank_that_made_the_others_fail():
    reason, peer, terminated, killed = (
        failure(1, timestamp=1005.5, by_peer=False), failure(1, timestamp=1001.0, by_peer=True),
        failure(-15), failure(-9),
    )  # fmt: skip
    assert first_failure({0: terminated, 1: reason})[0] == 1
    assert first_failure({0: peer, 1: killed})[0] == 1
    assert first_failure({0: peer, 1: reason, 2: killed})[0] == 1
    assert first_failure({0: peer, 1: terminated})[0] == 0
    assert first_failure({0: reason, 1: failure(1, timestamp=1004.0, by_peer=False)})[0] == 1
    assert [exit_code(f) for f in (reason, killed, failure(3))] == [1, 137, 3]


def test_a_rank_that_is_killed_after_its_report_has_failed_with_the_code_it_reported():
    assert exit_code(failure(-15, timestamp=1004.0, by_peer=False, code=2)) == 2


def test_float32_on_cuda_is_not_rounded_to_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    use_exact_float32(replace(pick_device("cpu"), type="cuda"))
    assert not torch.backends.cudnn.allow_tf32


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
