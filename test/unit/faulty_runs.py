"""Trainings in several processes with a fault: a plugin of their tests, for its fixture."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT

FAULT = "the fault: "


@pytest.fixture
def train(config, corpus, tmp_path):
    """Run waveglow.train, as faulty_train with a fault, in several processes; (process, its logs)."""

    def run(output, fault, *options, nproc=2, launcher=(), seconds=280):
        module = "faulty_train" if fault else "waveglow.train"
        logs = tmp_path / f"logs of {output}"
        command = [sys.executable, "-m", "common.launch", f"--nproc_per_node={nproc}", *launcher, "-m", module]
        options = [
            f"--config={config[0]}", f"--data_path={corpus}", f"--output_directory={tmp_path / output}",
            "--device=cpu", "--batch_size=2", f"--log_directory={logs}", *options,
        ]  # fmt: skip
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'test/unit'}", "FAULT": fault, "CORPUS": str(corpus), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        done = subprocess.run(
            [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
        )
        done.logs = [(logs / f"{rank}/train_{rank}.log").read_text() for rank in range(nproc) if nproc > 1]
        return done

    return run
