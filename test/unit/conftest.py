"""What the tests share: the reference numbers, a tiny corpus and model, the user's scripts in a copy."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

# Before PyTorch is there, and for the programs that tests start: for toy models threads cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common import program  # noqa: E402 - only now can it be found
from common.checkpoints.saving import Saver  # noqa: E402

# Processes of tests are forked from one that has imported this and has no threads: a fork beside threads may hang.
multiprocessing.set_forkserver_preload(["conftest", "common.training.run", "tacotron2.data"])

# Plugins of some files, which import their functions, too; and what compares for two files.
pytest.register_assert_rewrite("faulty_runs", "graphed_steps", "hostile", "serving", "tbe_files")

RATE = 22050
EMULATOR = ROOT / "test/npu_emulator"
NPU = {"PYTHONPATH": str(EMULATOR)}
"The environment in which `import torch_npu` finds the emulated device."
SHARED = "TESTS_SHARED_FOLDER"
"Where pytest-xdist runs the tests in several processes."


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="the slow tests, too: whole programs, several processes")


def pytest_configure(config):
    """A folder for what takes long to make, for all processes of this run."""
    if hasattr(config, "workerinput"):
        os.environ[SHARED] = str(Path(config.option.basetemp).parent)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def signals_end_the_tests():
    """A handler of the product's would keep `timeout` and Ctrl-C from ending pytest."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    left = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert left == handlers, "a handler of signals was left behind"


@pytest.fixture
def handlers(monkeypatch):
    """The product's handlers of signals, by number, which stay out of the tests' process."""
    found = {}
    monkeypatch.setattr(program, "signal", SimpleNamespace(signal=found.__setitem__))
    return found


@pytest.fixture(autouse=True)
def locks_end_with_the_test():
    """A program's, which end with it; here the process goes on."""
    yield
    program.at_end.close()


@pytest.fixture(autouse=True)
def log_handlers_end_with_the_test():
    """A program that a test runs in this process opens the log; the next one would write every line twice."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        if type(handler).__module__ in ("logging", "common.log"):  # pytest has handlers of its own
            root.removeHandler(handler)


@pytest.fixture(autouse=True)
def threads_end_with_the_test():
    """An engine of the deployment takes its share of the cores, and more threads add numbers up in another order."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference():
    """Inputs, weights and outputs of NVIDIA/waveglow at toy size."""
    return torch.load(ROOT / "test/data/reference/waveglow.pt", weights_only=True)


@pytest.fixture(scope="session")
def ljspeech_mini():
    folder = ROOT.parent / "shared/ljspeech_mini"
    if not folder.is_dir():
        pytest.skip("the recordings of LJ Speech are not here")
    return folder


@pytest.fixture
def config(tmp_path):
    """A configuration file of toy size; returns (path, dict)."""
    values = toy_config()
    return write_config(tmp_path / "config.json", values), values


def toy_config() -> dict:
    return {
        "train_config": {
            "batch_size": 4, "epochs": 100, "iters_per_checkpoint": 100, "iters_per_validation": 100,
            "learning_rate": 1e-3, "workers": 0, "with_tensorboard": False,
        },
        "data_config": {"segment_length": 2048},
        "waveglow_config": {
            "n_mel_channels": 6, "n_flows": 2, "n_early_every": 4,
            "WN_config": {"n_layers": 2, "n_channels": 8},
        },
    }  # fmt: skip


def toy_tacotron2_config() -> dict:
    """With the audio and the steps of ``toy_config``, and dropout as it is by default."""
    return {
        "train_config": toy_config()["train_config"],
        "tacotron2_config": {
            "n_mel_channels": 6, "symbols_embedding_dim": 16, "encoder_embedding_dim": 16, "decoder_rnn_dim": 20,
            "prenet_dim": 12, "attention_rnn_dim": 18, "attention_dim": 10, "attention_location_n_filters": 4,
            "attention_location_kernel_size": 7, "postnet_embedding_dim": 14, "max_decoder_steps": 40,
        },
    }  # fmt: skip


def write_config(path: Path, values: dict) -> Path:
    path.write_text(json.dumps(values))
    return path


def make_corpus(folder: Path, clips: int = 13, seconds: float = 0.4) -> Path:
    """A corpus of noisy tones in LJ Speech's layout."""
    (folder / "wavs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * RATE)) / RATE
    lines = []
    for i in range(clips):
        audio = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 2000) * time) + 0.01 * rng.standard_normal(len(time))
        soundfile.write(folder / "wavs" / f"clip{i:02}.wav", audio, RATE, subtype="PCM_16")
        lines.append(f"clip{i:02}|A tone.|A tone.\n")
    (folder / "metadata.csv").write_text("".join(lines))
    return folder


def write_programs(folder: Path, texts: dict[str, str]) -> None:
    """Scripts by their names, to stand in for programs where the folder is on the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def touch(folder: Path, *names: str) -> Path:
    """Empty files, in folders that are made."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def toy():
    """Tacotron2's configuration of toy size."""
    return toy_tacotron2_config()


@pytest.fixture
def no_process_left():
    """After the test no process is left that it has started; others may have left some that are about to end."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


@pytest.fixture
def disk_that_keeps_up(monkeypatch):
    """The training waits until a checkpoint is written, so that none is left out, however slow the disk is."""
    save = Saver.save
    monkeypatch.setattr(Saver, "save", lambda self, *checkpoint: save(self, *checkpoint) or self._last.result())


@pytest.fixture
def checkout(tmp_path):
    """A copy of the repository's files in a folder with blanks in its name."""
    return copy_repository(tmp_path / "a check out")


def copy_repository(target: Path) -> Path:
    for name in ("common", "waveglow", "tacotron2", "configs", "test"):
        ignored = shutil.ignore_patterns("__pycache__", "output", "demo", "corpus", "reference", "unit", "npu_emulator")
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    return target


@pytest.fixture(scope="session")
def npu_extension() -> Path:
    """The emulated NPU's extension, built once and kept for the next time."""
    built = subprocess.run(
        [sys.executable, EMULATOR / "build_extension.py"],
        env=os.environ | NPU, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    if built.returncode == 3:
        pytest.skip(built.stderr.strip().splitlines()[-1])
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


def run_script(
    checkout: Path, script: str, *options: str, cwd: Path | None = None, timeout: float = 500, **environment
):
    """Run a script of test/ as a user would; the finished process with its output as text."""
    return subprocess.run(
        ["bash", str(checkout / "test" / script), *options],
        cwd=cwd or checkout, env=script_environment() | environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def script_environment() -> dict[str, str]:
    """The environment in which the scripts find this interpreter."""
    return os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """Run a program in the folder of the test, in its process: another one takes seconds to load PyTorch."""
    from common import log, program

    def run(main, *options) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["program", *map(str, options)])
        monkeypatch.setattr(program, "_end", sys.exit)  # which ends at once, without Python's own end
        monkeypatch.setattr(log, "console", log.Console())
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            program.run(main)
        return subprocess.CompletedProcess(sys.argv, end.value.code, *capsys.readouterr())

    return run
