"""What can be known from the options and the files alone, before PyTorch is loaded and before anything is made."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from common.program import UserError
from tools.deploy.artifacts import ONNX, engine_folder
from tools.deploy.checkpoints import find_checkpoints, is_named
from tools.deploy.engines.engine import find_engine
from tools.deploy.gen_model.settings import DEFAULT, Settings, load_settings

log = logging.getLogger(__name__)


def begin(args: argparse.Namespace, quant_modes: Sequence[str]) -> Settings:
    """The build configuration, after a check of what would otherwise fail only after minutes of work.

    Writes nothing; says on which device and in which sizes the work will be. UserError for sizes, engines, devices,
    voices and checkpoints that do not exist, and for folders that cannot be written to.
    """
    settings = load_settings(args.json)
    smallest, _, largest = settings.ranges.text
    if not smallest <= args.il <= largest:
        raise UserError(
            f"--il is {args.il}, and engines are built for {smallest} to {largest}: choose another, or give with --json"
            f" a copy of {args.json or DEFAULT} in which ranges.text are others"
        )
    if is_named(args):
        find_checkpoints(args)
    engines = [engine_folder(args.models_dir, args.engine, mode) for mode in quant_modes]
    for folder in (args.output, args.models_dir / ONNX, *engines):
        check_folder(folder)
    for device in args.devices:
        engine = find_engine(args.engine)(device, len(args.devices), settings.engine(args.engine).options())
        log.info("device %d: %s", device, engine.device_name)
        engine.close()
    log.info(
        "%s, batches of %s, texts of %d characters, %d iterations after %d of warm-up; graphs and engines in %s,"
        " results in %s",
        " ".join(quant_modes), " and ".join(map(str, args.bs)), args.il, args.num_iters, args.warmup_iters,
        args.models_dir, args.output,
    )  # fmt: skip
    return settings


def check_folder(folder: Path) -> None:
    """UserError, if files could not be written to the folder, which need not be there yet."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise UserError(f"cannot write to {folder}: {there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to {folder}: {there} may not be written to")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
