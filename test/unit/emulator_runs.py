"""The checks of the emulated NPU, run in a process that finds it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from conftest import NPU

FAST = ("-m", "not slow")


def checks_in(*files: Path) -> list[str]:
    """The names of the checks in these files."""
    return [name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)]


def run(*arguments: str | Path, timeout: float = 500, **environment: str) -> subprocess.CompletedProcess:
    """Python with the emulated NPU in its path."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | NPU | environment,
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def run_checks(files: list[Path | str], report: Path, slow: bool, **environment: str) -> dict[str, list[str]]:
    """What went wrong in each of the checks in these files, or of these names in pytest's form; the slow ones, too."""
    inner = run(
        "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *([] if slow else FAST),
        NPU_EMULATOR_DEVICES="8", **environment,
    )  # fmt: skip
    assert report.exists(), inner.stdout + inner.stderr
    wrong = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problems = wrong.setdefault(case.get("name").split("[")[0], [])
        problems += [f"{case.get('name')}\n{problem.text}" for problem in case]
    return wrong
