"""The repository's own files keep their form."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from conftest import ROOT


def tracked(*patterns: str) -> list[str]:
    """Files by glob, generated ones left out."""
    found = (p for pattern in patterns for p in ROOT.glob(pattern))
    return sorted(str(p.relative_to(ROOT)) for p in found if not {"output", "demo", ".venv"} & set(p.parts))


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_python_is_clean(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_types_are_right():
    (pinned,) = re.findall(r"^torch==(.+)$", (ROOT / "requirement.txt").read_text(), re.MULTILINE)
    if version("torch").partition("+")[0] != pinned:
        pytest.skip(f"the types are those of torch {pinned}")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bash_is_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    scripts = tracked("test/*.sh", "test/data/*.sh", "tools/*.sh", "tools/deploy/**/*.sh", ".ci/run")
    assert len(scripts) > 8
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
