"""Builds the emulated NPU's C++ extension once and keeps it; as a program, prints where it lies.

Exit code 3 of the program: this machine has no C++ compiler, or PyTorch is older than the sources.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ["-std=c++20", "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden", "-w"]
LIBRARIES = ["-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"]
LOCK_SECONDS = 600
OLDEST_TORCH = (2, 8)
NOT_HERE = 3


class NotHereError(RuntimeError):
    """There is nothing to build with, or to build for."""


def extension() -> Path:
    """The shared library for this PyTorch and these sources, built if it is not there yet.

    Raises NotHereError, RuntimeError with the compiler's words, or TimeoutError if another process holds
    the lock for too long.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise NotHereError(f"the emulated NPU is written for PyTorch {oldest}, not {torch.__version__}")
    folder = cache_folder()
    target = folder / f"npu_emulator_{_fingerprint()}.so"
    if not target.exists():
        command = compiler()
        with _lock(folder / "lock"):
            if not target.exists():  # another process may have built it while this one waited
                _build(command, target)
    return target


def compiler() -> str:
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++"]
    for name in wanted:
        if path := shutil.which(name):
            return path
    raise NotHereError(f"no C++ compiler for the emulated NPU: no {' or '.join(wanted)}")


def cache_folder() -> Path:
    """``$NPU_EMULATOR_BUILD``, else in ``$XDG_CACHE_HOME``, else a temporary folder of this user."""
    if chosen := os.environ.get("NPU_EMULATOR_BUILD"):
        folder = Path(chosen)
    elif cache := os.environ.get("XDG_CACHE_HOME"):
        folder = Path(cache) / "npu_emulator"
    else:
        folder = Path(tempfile.gettempdir()) / f"npu_emulator_{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # a library from there would run as this user
        raise RuntimeError(f"{folder} belongs to another user: choose a folder with NPU_EMULATOR_BUILD")
    return folder


def _abi() -> list[str]:
    """Flags with which the library fits this PyTorch: C++'s strings, and pybind11's types where it shares them by the
    compiler it was built with."""
    flags = [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    for name in ("COMPILER_TYPE", "STDLIB", "BUILD_ABI"):
        if value := getattr(torch._C, f"_PYBIND11_{name}", None):
            flags.append(f'-DPYBIND11_{name}="{value}"')
    return flags


def _fingerprint() -> str:
    """Of all that the library depends on."""
    digest = hashlib.sha256(f"{torch.__version__} {sys.version} {FLAGS} {_abi()} {LIBRARIES}".encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time, and given back by the system if that one dies."""
    with path.open("w") as file:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"another process has held {path} for {LOCK_SECONDS} s") from None
                time.sleep(0.1)
        yield


def _build(compiler: str, target: Path) -> None:
    torch_folder = Path(torch.__file__).parent
    headers = torch_folder / "include"
    folders = [headers, headers / "torch/csrc/api/include", sysconfig.get_paths()["include"]]
    includes = [f"-isystem{folder}" for folder in folders]
    paths = [f"-L{torch_folder}/lib", f"-Wl,-rpath,{torch_folder}/lib"]
    unfinished = target.with_suffix(f".{os.getpid()}")
    sources = [*includes, str(SOURCES / "module.cpp")]
    command = [compiler, *FLAGS, *_abi(), *sources, *paths, *LIBRARIES, "-o", str(unfinished)]
    try:
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            raise RuntimeError(f"the emulated NPU does not build with PyTorch {torch.__version__}:\n{built.stderr}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        print(extension())
    except NotHereError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_HERE)
