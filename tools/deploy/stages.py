"""The stages in front of a measurement: graphs and engines, made where they are not there."""

import argparse
import logging
import subprocess
from pathlib import Path

from common.log import still
from common.program import UserError
from common.voices import sha256
from tools.deploy.artifacts import ONNX, Contents, engine_folder, read_contents
from tools.deploy.engines.engine import find_engine
from tools.deploy.export_model.export import export_graphs
from tools.deploy.gen_model.build import Order, build
from tools.deploy.gen_model.settings import Settings, load_settings
from tools.deploy.models import DOWNLOADED, RANDOM, Wanted, downloaded, find_checkpoints

log = logging.getLogger(__name__)

FETCH = Path(__file__).parent / "export_model/get_datasets_and_models.sh"


def begin(args: argparse.Namespace) -> Settings:
    """The build configuration, after a check of what would otherwise fail only after minutes of work.

    UserError for sizes, engines and devices that do not exist.
    """
    settings = load_settings(args.json)
    smallest, _, largest = settings.ranges.text
    if not smallest <= args.il <= largest:
        raise UserError(f"--il is {args.il}, and engines are built for {smallest} to {largest} (see --json)")
    shares = len(args.devices)
    for device in args.devices:
        engine = find_engine(args.engine)(device, shares, settings.engine(args.engine).options())
        log.info("device %d: %s", device, engine.device_name)
        engine.close()
    return settings


def make_graphs(args: argparse.Namespace) -> None:
    """The graphs of the checkpoints that are named; else those that are there, else of what can be fetched."""
    named = bool(args.tacotron2 or args.waveglow or args.voice or args.random)
    folder = args.models_dir / ONNX
    if named:
        wanted = find_checkpoints(args)
        if wanted.hints or not are_there(folder, wanted, args.opset):
            export_graphs(args.models_dir, wanted, args.opset)
    elif not are_there(folder, None, args.opset):
        fetch(args.models_dir)
        export_graphs(args.models_dir, find_checkpoints(args), args.opset)


def are_there(folder: Path, wanted: Wanted | None, opset: int | None = None) -> bool:
    """Whether graphs are in the folder, whole, of these checkpoints and in this opset; with None of or in any."""
    try:
        contents = read_contents(folder, ONNX, "")
        for graph in contents.files:
            contents.path(folder, graph)
    except UserError:
        return False
    if opset not in (None, contents.opset):
        return False
    for kind, source in contents.sources.items():
        path = wanted.paths[kind] if wanted else source.path
        if source.path != path or (wanted and path != RANDOM and source.sha256 != sha256(Path(path))):
            return False
    log.info("the graphs of %s are there", " and ".join(source.path for source in contents.sources.values()))
    return True


def fetch(models_dir: Path) -> None:
    """Fetch NVIDIA's checkpoints, if possible. UserError if that broke off: no other voice is to take their place."""
    if len(downloaded(models_dir)) == len(DOWNLOADED):
        return
    with still("fetching the checkpoints"):
        done = subprocess.run(["bash", FETCH, f"--models_dir={models_dir}"], check=False)
    if done.returncode and any((models_dir / "checkpoints").glob("*")):
        raise UserError("the checkpoints are there in part, see above: run it again, or name others (--voice=NAME)")
    if done.returncode:
        log.warning("NVIDIA's checkpoints cannot be fetched, see above")


def make_engines(args: argparse.Namespace, settings: Settings, quant_mode: str) -> tuple[Path, Contents]:
    """The engines in a mode, for the batches that are wanted; those that are there are kept if they are for these."""
    folder = engine_folder(args.models_dir, args.engine, quant_mode)
    settings = settings.for_batches(batches(folder, args.engine, args.bs))
    return folder, build(Order(args.engine, quant_mode, args.models_dir, folder, settings))


def batches(folder: Path, engine: str, wanted: list[int]) -> list[int]:
    """Smallest, usual and largest batch: of the engines that are there, if that will do."""
    try:
        smallest, usual, largest = read_contents(folder, engine, "").ranges["batch"]
    except UserError:
        smallest, usual, largest = 0, 0, 0
    if smallest <= min(wanted) and max(wanted) <= largest:
        return [smallest, usual, largest]
    return [1, 4, max(8, *wanted)]
