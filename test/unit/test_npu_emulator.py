"""The emulated NPU itself, and the product's parts on it.

It turns a whole process into one with NPUs: the checks run in processes of their own.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from emulator_runs import checks_in, run, run_checks

from conftest import EMULATOR

FILES = [EMULATOR / f"{topic}_checks.py" for topic in ("device", "number", "optimizer", "product", "crossing")]


@pytest.fixture(scope="module")
def outcomes(npu_extension, tmp_path_factory, pytestconfig) -> dict[str, list[str]]:
    return run_checks(FILES, tmp_path_factory.mktemp("npu") / "report.xml", pytestconfig.getoption("--slow"))


@pytest.mark.parametrize("name", checks_in(*FILES))
def test_device(name, outcomes):
    assert not outcomes[name], "\n".join(outcomes[name])


def test_hccl(npu_extension):
    done = run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", EMULATOR / "hccl_checks.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_eight_processes_build_once(npu_extension, tmp_path):
    """All at once, with a slow compiler that notes its calls."""
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/bash\necho called >> "{tmp_path}/calls"\nsleep 2\ncp "{npu_extension}" "${{@: -1}}"\n')
    compiler.chmod(0o755)
    program = "import torch, torch_npu; torch.set_num_threads(1); print(torch.ones(3, device='npu').sum().item())"
    with ThreadPoolExecutor(8) as pool:
        started = [
            pool.submit(run, "-c", program, CXX=str(compiler), NPU_EMULATOR_BUILD=str(tmp_path / "new" / "build"))
            for _ in range(8)
        ]
    for process in started:
        assert process.result().stdout == "3.0\n", process.result().stderr
    assert (tmp_path / "calls").read_text() == "called\n"
    assert sorted(file.name for file in (tmp_path / "new/build").iterdir()) == ["lock", npu_extension.name]


def test_build_that_cannot_be(tmp_path):
    folder = str(tmp_path / "build")
    missing = run(EMULATOR / "build_extension.py", CXX=str(tmp_path / "no-compiler"), NPU_EMULATOR_BUILD=folder)
    assert missing.returncode == 3 and len(missing.stderr.splitlines()) == 1
    if "is written for PyTorch" in missing.stderr:
        pytest.skip(missing.stderr.strip())
    broken = run(EMULATOR / "build_extension.py", CXX="false", NPU_EMULATOR_BUILD=folder)
    assert broken.returncode == 1 and "does not build" in broken.stderr
    assert [file.name for file in (tmp_path / "build").iterdir()] == ["lock"]


def test_counts_at_exit(npu_extension, tmp_path):
    done = run(
        "-c",
        "import torch, torch_npu; assert torch.npu.device_count() == 2; torch.ones(4).npu().exp().cpu()",
        NPU_EMULATOR_DEVICES="2",
        NPU_EMULATOR_COUNTS=str(tmp_path / "counts-{rank}.json"),
        RANK="1",
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "counts-1.json").read_text())
    assert counts["operators"] == {"exp": 1}
    assert counts["copies"]["host_to_device_bytes"] == counts["copies"]["device_to_host_bytes"] == 16
