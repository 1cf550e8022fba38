"""The phases of the programs' work that attack.py interrupts, and what must be the same in the end."""

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test/unit")]

from common.checkpoints import native  # noqa: E402 - from the root
from conftest import make_corpus, toy_config, toy_tacotron2_config, write_config  # noqa: E402 - sets a list to preload

PRELOADED = [
    "conftest", "waveglow.train", "waveglow.infer", "tacotron2.train", "tools.prepare_data",
    "torch._dynamo", "librosa.filters", "librosa.core.audio", "librosa.feature", "numba", "matplotlib.figure",
]  # fmt: skip
"What processes are forked with, and what the programs import late: a start takes no seconds. None starts a thread."
PATHS = os.pathsep.join((str(ROOT), str(ROOT / "test/unit")))
"Where the process that is forked finds them; before Python 3.12 it is told so by PYTHONPATH alone."
PATIENCE = 300
"Seconds for a program that nobody disturbs."
STEPS = 12


@dataclass
class Phase:
    """A kind of work to be interrupted."""

    name: str
    module: str
    options: Callable[[Path], list[str]]
    "Those that make it write to this folder."
    has_begun: Callable[[Path], bool]
    result: Callable[[Path], dict[str, str]]
    "What must be the same in the end: names and digests."
    check: Callable[[Path], None] = lambda folder: None
    "Raises, right after a kill, if something is there that must not be."
    whole: dict[str, str] = field(default_factory=dict)
    "The result of the undisturbed one."
    seconds: float = 0.0
    "How long that took from where its phase began."


def started(context: BaseContext, phase: Phase, folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=work, args=(phase.module, phase.options(folder), folder / "log.txt"))
    process.start()
    return process


def run_whole(context: BaseContext, phase: Phase, folder: Path) -> int:
    return ended(started(context, phase, folder))


def ended(process: Any) -> int:
    """The exit code of a process that nobody disturbs; -1 after PATIENCE, when it is killed."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        return -1
    return process.exitcode


def work(module: str, options: list[str], log: Path) -> None:
    """The program, in a process of its own."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = [module, *options]
    from common import program

    program.run(importlib.import_module(module).main)


def last_line(folder: Path) -> str:
    lines = (folder / "log.txt").read_text().strip().splitlines()
    return lines[-1] if lines else ""


def make_phases(context: BaseContext, folder: Path, wanted: str) -> list[Phase]:
    """Each with the result of an undisturbed run. Toys of the tests, and the demo corpus."""
    corpus = make_corpus(folder / "corpus", clips=30)
    every_step = {"iters_per_checkpoint": 1, "iters_per_validation": 5, "keep_checkpoints": 3, "max_steps": STEPS}
    configs = {}
    for name, values in (("waveglow", toy_config()), ("tacotron2", toy_tacotron2_config())):
        values["train_config"] |= every_step
        configs[name] = write_config(folder / f"{name}.json", values)

    def training(name: str) -> Callable[[Path], list[str]]:
        plain = [f"--config={configs[name]}", f"--data_path={corpus}", "--device=cpu"]
        return lambda output: [*plain, f"--output_directory={output / 'out'}"]

    trained = Phase("", "waveglow.train", training("waveglow"), lambda _: True, lambda _: {})
    if code := run_whole(context, trained, folder / "trained"):
        raise SystemExit(f"the undisturbed training ended with {code}: {last_line(folder / 'trained')}")
    weights = folder / f"trained/out/waveglow_{STEPS}"

    def evaluation(output: Path) -> list[str]:
        inputs = [str(path) for path in sorted((corpus / "wavs").iterdir())[:6]]
        return [f"--pth_path={weights}", f"--output_directory={output / 'out'}", "--device=cpu", *inputs]

    def checkpoints_load(output: Path) -> None:
        for name in configs:
            for path in native.newest_first(output / "out", name):
                native.load(path)

    saved = lambda name: lambda output: digest_of_checkpoint(output / f"out/{name}_{STEPS}")  # noqa: E731
    phases = [
        Phase(
            "cache", "tacotron2.train", training("tacotron2"),
            lambda output: any((output / "out/mels").glob("*")),
            lambda output: saved("tacotron2")(output) | digests(output / "out/mels", "*"), checkpoints_load,
        ),
        Phase(
            "checkpoint", "waveglow.train", training("waveglow"),
            lambda output: any((output / "out").glob("*waveglow_*")), saved("waveglow"), checkpoints_load,
        ),
        Phase(
            "evaluation", "waveglow.infer", evaluation, lambda output: any((output / "out").glob("*.wav")),
            lambda output: digests(output / "out", "*.wav") | complete_page(output / "out"),
        ),
        Phase(
            "page", "waveglow.infer", evaluation,
            lambda output: (output / "out/evaluation.json").exists(),
            lambda output: digests(output / "out", "*.wav") | complete_page(output / "out"),
        ),
    ]  # fmt: skip
    if not wanted or "engines" in wanted:
        phases.append(engines_phase())
    if (ROOT / "tools/prepare_data.py").exists() and (not wanted or "preparing" in wanted):
        phases.append(preparing_phase())
    phases = [phase for phase in phases if not wanted or phase.name in wanted.split(",")]
    for phase in phases:
        output = folder / "whole" / phase.name
        process = started(context, phase, output)
        while process.is_alive() and not phase.has_begun(output):
            time.sleep(0.005)
        began = time.monotonic()
        code = ended(process)
        phase.seconds = time.monotonic() - began
        if code:
            raise SystemExit(f"{phase.name}: undisturbed it ended with {code}: {last_line(output)}")
        phase.whole = phase.result(output)
        print(f"{phase.name}: undisturbed {phase.seconds:.1f} s from where the kills begin", flush=True)
    return phases


def engines_phase() -> Phase:
    """Engines of ONNX Runtime, of toy models."""
    from deploy_toys import models_dir

    graphs = models_dir()
    order = ["--quant_mode=force_float32", "--bs", "1", "2", "4", "--engine=onnxruntime", f"--models_dir={graphs}"]
    return Phase(
        "engines", "tools.deploy.gen_model.build", lambda output: [*order, "-o", str(output / "out")],
        lambda output: (output / "out").exists(), lambda output: digests(output / "out", "*.onnx"),
    )  # fmt: skip


def preparing_phase() -> Phase:
    """The demo corpus as somebody's recordings."""
    recordings = str(ROOT / "test/data/corpus")
    return Phase(
        "preparing", "tools.prepare_data", lambda output: [recordings, str(output / "out")],
        lambda output: (output / "out").exists(),
        lambda output: digests(output / "out", "*.wav") | digests(output / "out", "metadata.csv"),
    )  # fmt: skip


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Of the files, not counting those that begin with a dot."""
    found = [path for path in sorted(folder.rglob(pattern)) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def digest_of_checkpoint(path: Path) -> dict[str, str]:
    """Of each weight, and of the losses."""
    state = native.load(path)
    tensors = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state["model"].items()}
    return tensors | {"losses": json.dumps(state["progress"]["losses"])}


def complete_page(folder: Path) -> dict[str, str]:
    """Of the figures but those of time, and whether the page ends as one."""
    clips = json.loads((folder / "evaluation.json").read_text())["clips"]
    figures = [{name: value for name, value in clip.items() if name != "real_time_factor"} for clip in clips]
    page = (folder / "index.html").read_text().rstrip()
    return {"figures": json.dumps(figures), "page": f"{page.endswith('</html>')}, {page.count('<audio')} sounds"}
