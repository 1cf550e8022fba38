"""Commands that messages tell the user: with the options that he gave, to be pasted where he stands."""

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.deploy.checkpoints import RANDOM

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def again(*more: str) -> str:
    """This program with the options that it was given and some more."""
    program = Path(sys.argv[0])
    script = program.with_suffix(".sh")  # which passes its options on as they are
    start = ["bash", where(script)] if script.is_file() else ["python", str(program)]
    return shlex.join([*start, *sys.argv[1:], *more])


def export(models_dir: Path, checkpoints: Mapping[str, str] | None = None, opset: int | None = None) -> str:
    """Export the graphs of these checkpoints, by default of those that are found."""
    named = [f"--{kind}={path}" for kind, path in (checkpoints or {}).items()]
    if RANDOM in (checkpoints or {}).values():
        models_dir, named = models_dir.parent, ["--random"]
    more = [f"--opset={opset}"] if opset else []
    return shlex.join(["bash", where(HERE / "export_model/run.sh"), *named, f"--models_dir={models_dir}", *more])


def build(
    engine: str, quant_mode: str, batches: Iterable[int], models_dir: Path, output: Path | None = None, json: str = ""
) -> str:
    """Build engines for the smallest, usual and largest batch; ``json``: the build configuration."""
    more = [*([f"--json={json}"] if json else []), *(["-o", str(output)] if output else [])]
    sizes = map(str, batches)
    options = [quant_mode, *sizes, f"--engine={engine}", f"--models_dir={models_dir}", *more]
    return shlex.join(["bash", where(HERE / "gen_model/run.sh"), *options])


def install(requirements: str) -> str:
    return shlex.join(["pip", "install", "-r", where(ROOT / requirements)])


def where(path: Path) -> str:
    """The path as seen from here, where that is shorter."""
    return min(os.path.relpath(path), str(path.resolve()), key=len)
