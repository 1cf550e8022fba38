"""The stages in front of a measurement: graphs and engines, made where they are not there."""

import argparse
import logging
import os
import subprocess
from pathlib import Path

from common.log import still
from common.program import UserError
from common.voices import DEFAULT, sha256
from tools.deploy import commands
from tools.deploy.artifacts import ONNX, Contents, engine_folder, read_contents
from tools.deploy.checkpoints import DOWNLOADED, RANDOM, Wanted, downloaded, find_checkpoints, is_named, naming
from tools.deploy.export_model.onnx_export import check_exporter
from tools.deploy.export_model.to_onnx import check_replaceable, export_graphs
from tools.deploy.gen_model.building import Order, build
from tools.deploy.gen_model.settings import Settings, batches_for

log = logging.getLogger(__name__)

FETCH = Path(__file__).parent / "export_model/get_datasets_and_models.sh"


def make_graphs(args: argparse.Namespace) -> None:
    """The graphs of the checkpoints that are named; else those that are there, else of what can be fetched."""
    folder = args.models_dir / ONNX
    if is_named(args):
        wanted = find_checkpoints(args)
        if wanted.hints or not are_there(folder, wanted, args.opset):
            export_graphs(args.models_dir, wanted, args.opset)
    elif not are_there(folder, None, args.opset):
        check_exporter()
        fetched = {kind: str(args.models_dir / "checkpoints" / name) for kind, name in DOWNLOADED.items()}
        check_replaceable(folder, Wanted(fetched, named=False, options=naming(fetched)))
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
    if wanted and wanted.sigma != contents.sigma:
        return False
    if wanted and wanted.cleaners and wanted.cleaners != contents.tacotron2.data_config.text_cleaners:
        return False
    for kind, source in contents.sources.items():
        path = wanted.paths[kind] if wanted else source.path
        if source.path != path or (wanted and path != RANDOM and source.sha256 != sha256(Path(path))):
            return False
    names = dict.fromkeys(source.path for source in contents.sources.values())
    log.info("the graphs of %s are there", " and ".join(names))
    return True


def fetch(models_dir: Path) -> None:
    """Fetch NVIDIA's checkpoints, if possible. UserError if that broke off: no other voice is to take their place."""
    if len(downloaded(models_dir)) == len(DOWNLOADED):
        return
    with still("fetching the checkpoints"):
        holding = os.environ | {"HOLDS_MODELS_DIR": str(models_dir)}  # which this program does
        done = subprocess.run(["bash", FETCH, f"--models_dir={models_dir}"], check=False, env=holding)
    if done.returncode and any((models_dir / "checkpoints").glob("*")):
        raise UserError(
            f"the checkpoints are there in part, see above: run it again, {commands.again()}, or take others,"
            f" {commands.again(f'--voice={DEFAULT}')}"
        )
    if done.returncode:
        log.warning("NVIDIA's checkpoints cannot be fetched, see above")


def make_engines(args: argparse.Namespace, settings: Settings, quant_mode: str) -> tuple[Path, Contents]:
    """The engines in a mode, for the batches that are wanted; those that are there are kept if they are for these."""
    folder = engine_folder(args.models_dir, args.engine, quant_mode)
    settings = settings.for_batches(batches(folder, args.engine, args.bs))
    return folder, build(Order(args.engine, quant_mode, args.models_dir, folder, settings, json=args.json))


def batches(folder: Path, engine: str, wanted: list[int]) -> list[int]:
    """Smallest, usual and largest batch: of the engines that are there, if that will do."""
    try:
        smallest, usual, largest = read_contents(folder, engine, "").ranges["batch"]
    except UserError:
        smallest, usual, largest = 0, 0, 0
    if smallest <= min(wanted) and max(wanted) <= largest:
        return [smallest, usual, largest]
    return batches_for(wanted)
