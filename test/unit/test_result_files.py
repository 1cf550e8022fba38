"""The result files that the scripts of test/ leave."""

import platform
import time
from argparse import Namespace

import pytest

from common.log import console
from common.result_files import Results


@pytest.mark.parametrize(("ranks", "folder"), [(1, "3"), (2, "0")])
def test_a_run_leaves_its_results_and_its_losses(tmp_path, monkeypatch, ranks, folder):
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)
    monkeypatch.setattr(time, "time", lambda: 1012.4)
    results = Results("WaveGlow", ranks, 24, "perf", 12.5, 200.25, 0.0123, [0.5, -0.125])
    results.write(Namespace(log_directory=tmp_path, started=1000, device_id=3))
    written = {path.name: path.read_text().splitlines() for path in (tmp_path / folder).iterdir()}
    assert written == {
        f"WaveGlow_bs24_{ranks}p_perf.log": [
            "Network = WaveGlow", f"RankSize = {ranks}", "BatchSize = 24", f"DeviceType = {platform.machine()}",
            f"CaseName = WaveGlow_bs24_{ranks}p_perf", "ActualFPS = 12.5000", "TrainingTime = 12.30",
            "TrainAccuracy = -0.125000000", "ActualLoss = -0.125000000", "E2ETrainingTime = 12",
            "ActualSamplesPerSec = 200.2",
        ],
        f"train_WaveGlow_bs24_{ranks}p_perf_loss.txt": ["0.500000000", "-0.125000000"],
    }  # fmt: skip
    assert [line.rpartition(": ")[2] for line in said[-3:]] == ["12.5000", "-0.125000000", "12"]


def test_without_a_start_or_a_folder_there_is_none(tmp_path):
    results = Results("WaveGlow", 1, 24, "perf", 12.5, 200.25, 0.0123, [0.5])
    results.write(Namespace(log_directory=None, started=1000, device_id=0))
    assert not list(tmp_path.iterdir())
    results.write(Namespace(log_directory=tmp_path, started=None, device_id=0))
    assert "E2ETrainingTime = 0\n" in (tmp_path / "0/WaveGlow_bs24_1p_perf.log").read_text()
