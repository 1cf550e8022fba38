"""The repository's own files keep their form."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from conftest import ROOT


def tracked(*patterns: str) -> list[str]:
    """Files by glob, generated ones left out."""
    found = (path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern))
    names = sorted(str(path) for path in found if not {"output", "demo", ".venv"} & set(path.parts))
    assert names
    return names


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
    scripts = tracked("test/*.sh", "test/data/*.sh", "tools/**/*.sh", ".ci/run")
    assert len(scripts) > 20
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def takes_or_gives_tensors(function):
    kinds = [argument.annotation for argument in function.args.args] + [function.returns]
    return any(kind and re.match(r"(Tensor|np\.ndarray)\b", ast.unparse(kind)) for kind in kinds)


def test_shapes_are_in_the_docstrings_of_models_and_layers():
    """``x [B, C, T]``, or where the tensors are described: ``attend_over_time``."""
    lacking = []
    for name in tracked("waveglow/*.py", "tacotron2/*.py", "common/layers/*.py", "common/audio.py"):
        tree = ast.parse(Path(ROOT, name).read_text())
        bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
        functions = [each for body in bodies for each in body if isinstance(each, ast.FunctionDef)]
        assert any(map(takes_or_gives_tensors, functions)) or not name.endswith("model.py")
        lacking += [
            f"{name}: {each.name}"
            for each in functions
            if takes_or_gives_tensors(each)
            and not re.search(r"\[|shapes|``attend_over_time``", ast.get_docstring(each) or "")
        ]
    assert not lacking
