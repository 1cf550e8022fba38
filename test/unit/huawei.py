"""Huawei's own torch_npu: the Python of its published wheels, to be read and run, never installed or kept here."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from conftest import EMULATOR

WHEELS = {"2.1.0.post13": ("3.10", "manylinux_2_17_x86_64"), "2.14.0": ("3.11", "manylinux_2_28_x86_64")}
"Of the oldest line that is supported, and the newest: the Python and the platform that they are for."


def unpacked(version: str) -> Path:
    """The folder of the wheel's Python files, downloaded the first time; skips the test where no index is reached."""
    folder = cache_folder() / f"torch_npu_{version}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            with zipfile.ZipFile(download(version, place)) as wheel:
                sources = [name for name in wheel.namelist() if name.endswith(".py")]
                wheel.extractall(f"{place}/unpacked", sources)
            try:
                os.rename(f"{place}/unpacked", folder)
            except OSError:  # another process was faster
                assert folder.is_dir()
    return folder


def download(version: str, place: str) -> Path:
    python, platform = WHEELS[version]
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20",
        f"--python-version={python}", f"--platform={platform}", f"--dest={place}", f"torch-npu=={version}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("torch-npu's wheel does not come within 180 s")
    if done.returncode:
        pytest.skip(f"torch-npu's wheel is not to be had here: {done.stderr.strip().splitlines()[-1]}")
    return next(Path(place).glob("*.whl"))


def cache_folder() -> Path:
    """The one of the emulated card."""
    spec = importlib.util.spec_from_file_location("build_extension", EMULATOR / "build_extension.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cache_folder()
