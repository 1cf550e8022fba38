"""Toy models and what deployment makes of them, shared by its tests."""

import atexit
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from common.config_reading import from_dict
from common.program import UserError
from conftest import ROOT, SHARED, script_environment, toy_config, toy_tacotron2_config
from tacotron2.model import BatchNorm
from tools.deploy import models
from tools.deploy.artifacts import read_contents, write_contents
from tools.deploy.checkpoints import naming
from tools.deploy.engines.engine import find_engine
from tools.deploy.export_model import to_onnx
from tools.deploy.export_model.example_inputs import example_inputs, loop_inputs
from tools.deploy.export_model.onnx_export import check_exporter
from tools.deploy.gen_model import building
from tools.deploy.gen_model.settings import load_settings
from tools.deploy.infer_python.pipeline import Pipeline
from tools.deploy.models import PACKAGES, Model

FAKE = ROOT / "test/unit/fake_magicmind"
"A stand-in for Cambricon's package; programs that a test starts see it only if told to."
sys.path.append(str(FAKE))
ENGINES = ("onnxruntime", "torch", "magicmind")
SEEDS = [7, 8, 9]
TEXTS = [[5, 20, 3, 44, 9, 61, 2], [12, 3, 40], [*range(30, 50)]]
FIELDS = [
    "Iterations",
    "Preprocessing average (seconds)",
    "Number of mels per audio average",
    "Encoder latency average (seconds)",
    "Decoder latency average (seconds)",
    "Postnet latency average (seconds)",
    "Latency average (seconds)",
    "Latency std (seconds)",
    *[f"Latency cl {percent} (seconds)" for percent in (50, 90, 95, 99, 100)],
    "tacotron2_items_per_sec average",
]
WAVEGLOW_FIELDS = [
    "Throughput average (samples/sec)",
    "Postprocessing average (seconds)",
    "Waveglow latency average (seconds)",
]


@cache
def models_dir() -> Path:
    """Toy checkpoints and their graphs, made once for all tests."""
    try:
        check_exporter()
    except UserError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    if SHARED not in os.environ:
        return make_models(folder)
    shared = Path(os.environ[SHARED]) / "toys"
    with shared.with_name("toys.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := shared / "done").exists():
            make_models(shared)
            done.touch()
    shutil.copytree(shared, folder, dirs_exist_ok=True)  # a program that works in it holds it for itself
    contents = read_contents(folder / "onnx", "onnx", "")
    for kind, source in contents.sources.items():
        contents.sources[kind] = replace(source, path=str(folder / Path(source.path).name))
    contents.exported_by = naming({kind: source.path for kind, source in contents.sources.items()})
    write_contents(folder / "onnx", contents)
    return folder


def make_models(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    found = {kind: models.load(kind, str(make_checkpoint(kind, folder))) for kind in PACKAGES}
    paths = {kind: model.source.path for kind, model in found.items()}
    to_onnx.write(found, folder / "onnx", sigma=0.6, options=naming(paths))
    return folder


def make_checkpoint(kind: str, folder: Path) -> Path:
    values = toy_config() if kind == "waveglow" else toy_tacotron2_config()
    config = from_dict(PACKAGES[kind].Config, values)
    torch.manual_seed(1)
    model = PACKAGES[kind].build_model(config)
    make_lively(model)
    path = folder / f"{kind}.safetensors"
    safetensors.torch.save_file(model.state_dict(), path, {"config": json.dumps(asdict(config))})
    return path


def make_lively(model: torch.nn.Module) -> None:
    """Weights that make everything matter: a coupling of WaveGlow begins as the identity, for one."""
    for wn in getattr(model, "WN", []):
        torch.nn.init.normal_(wn.end.weight, std=0.1)
    for module in model.modules():
        if isinstance(module, BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    for name, parameter in model.named_parameters():
        if name.startswith("decoder.") and parameter.ndim > 1:
            parameter.data *= 2


@cache
def toy(kind: str) -> Model:
    return models.load(kind, str(models_dir() / f"{kind}.safetensors"))


@cache
def exported() -> dict[str, to_onnx.Export]:
    """The graphs, and the modules that they come from."""
    found = {}
    for kind in PACKAGES:
        model, modules, signatures = toy(kind), toy(kind).modules(), toy(kind).signatures()
        for name, module in modules.items():
            graph = onnx.load(models_dir() / "onnx" / f"{name}.onnx")
            inputs = partial(loop_inputs, model.model.decoder) if name == "decoder" else example_inputs
            found[name] = to_onnx.Export(name, graph, module, partial(inputs, signatures[name]))
    return found


def run(graph: onnx.ModelProto, **inputs) -> dict[str, torch.Tensor]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: np.asarray(value) for name, value in inputs.items()})
    return {port.name: torch.from_numpy(result) for port, result in zip(session.get_outputs(), results, strict=True)}


def make(folder, engine="onnxruntime", quant_mode="force_float32", batch=(1, 2, 8), graphs=None, **options):
    """Build an engine; the contents of its folder."""
    settings = load_settings(None).for_batches(list(batch))
    for name, value in options.items():
        setattr(settings.engine(engine), name, value)
    order = building.Order(engine, quant_mode, models_dir(), folder, settings, graphs or {}, compare=False)
    return building.build(order)


def start(folder, contents, device=0):
    engine = find_engine(contents.engine)(device, 1, contents.options)
    return Pipeline(folder, contents, engine), engine


def raw():
    """The exported graphs, run as they are."""
    contents = read_contents(models_dir() / "onnx", "onnx", "")
    return replace(contents, engine="onnxruntime", ranges=load_settings(None).for_batches([1, 2, 8]).sizes())


def run_script(name: str, *options, cwd=None, **environment) -> subprocess.CompletedProcess:
    """A script of tools/deploy, run as a user would."""
    return subprocess.run(
        ["bash", ROOT / "tools/deploy" / name, *options],
        cwd=cwd, env=script_environment() | environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip


def to_infer(quant_mode: str, batch: str, length: str, *options) -> list:
    """The options that infer_python/run.sh gives its program."""
    return ["--quant_mode", quant_mode, "--bs", batch, "--il", length, f"--models_dir={engines()}", *options]


def to_build(quant_mode: str, *options) -> list:
    """The options that gen_model/run.sh gives its program."""
    return ["--quant_mode", quant_mode, "--bs", *options]


def report_of(text: str) -> dict[str, dict[str, float]]:
    """Head line -> its fields."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("===="):
            found[line.strip("=")] = {}
        elif " = " in line:
            name, _, value = line.partition(" = ")
            found[next(reversed(found))][name] = float(value)
    return found


@cache
def engines():
    """A folder of engines, for batches of 1, 2 and 4."""
    folder = models_dir() / "onnxruntime_force_float32"
    make(folder, batch=(1, 2, 4))
    return folder


def run_infer(*options, cwd=None, **environment) -> subprocess.CompletedProcess:
    return run_script("infer_python/run.sh", *options, f"--models_dir={engines()}", cwd=cwd, **environment)
