"""Commands that messages tell the user: with the options that he gave, to be pasted where he stands."""

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def again(*more: str) -> str:
    """This program with the options that it was given and some more."""
    program = Path(sys.argv[0])
    scripts = program.with_suffix(".sh"), program.with_name("run.sh")  # which pass their options on as they are
    start = next((["bash", where(script)] for script in scripts if script.is_file()), ["python", str(program)])
    return shlex.join([*start, *sys.argv[1:], *more])


def export(models_dir: Path, options: Sequence[str] = (), opset: int | None = None) -> str:
    """Export the graphs of the checkpoints that the options name, by default of those that are found."""
    if "--random" in options:
        models_dir = models_dir.parent
    more = [f"--opset={opset}"] if opset else []
    return shlex.join(["bash", where(HERE / "export_model/run.sh"), *options, f"--models_dir={models_dir}", *more])


def build(
    engine: str,
    quant_mode: str,
    batches: Iterable[int],
    models_dir: Path,
    output: Path | None = None,
    options: Sequence[str] = (),
) -> str:
    """Build engines for the smallest, usual and largest batch, with the options that name files."""
    more = [*options, *(["-o", str(output)] if output else [])]
    sizes = map(str, batches)
    options = [quant_mode, *sizes, f"--engine={engine}", f"--models_dir={models_dir}", *more]
    return shlex.join(["bash", where(HERE / "gen_model/run.sh"), *options])


def install(requirements: str) -> str:
    return shlex.join(["pip", "install", "-r", where(ROOT / requirements)])


def where(path: Path) -> str:
    """The path as seen from here, where that is shorter."""
    return min(os.path.relpath(path), str(path.resolve()), key=len)
