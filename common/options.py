"""Command-line options that the programs share."""

import argparse
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import get_type_hints

from common import distributed
from common.config import AnyConfig, BaseConfig
from common.config_fields import choices, explanations
from common.config_reading import load_config
from common.folder_lock import LOCK, hold_folder
from common.log import keep_earlier, open_log
from common.program import Parser, UserError, has_launcher

TRAINING_OPTIONS = {
    "output_directory": "DIR", "checkpoint_path": "FILE", "keep_optimizer": None, "ignore_layers": "NAME,...",
    "epochs": "N", "max_steps": "N", "batch_size": "N", "learning_rate": "X", "amp": None, "loss_scale": "N|dynamic",
    "workers": "N", "profile": "N", "keep_checkpoints": "N", "on_save_error": None, "on_bad_clip": None,
    "hang_limit": "SECONDS", "compile": None,
}  # fmt: skip
"""Fields of train_config that are options, too, and what their values are called. All else is said at the field.
A field of one model alone becomes an option of its program."""


def add_run_options(parser: Parser) -> None:
    """Where to compute, on what, and what the scripts of test/ ask for."""
    add = parser.add_argument
    add("--data_path", default="", metavar="DIR", help="corpus with wavs/*.wav, as LJ Speech is laid out")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--device_id", type=int, default=0, metavar="N", help="card to use when there is one process")
    add = parser.add_argument_group("what the scripts of test/ set").add_argument
    add("--case", default="acc", choices=["acc", "perf"], help="kind of run, part of the result's name")
    add("--log_directory", metavar="DIR", help="write DIR/<rank>/train_<rank>.log and the result file there")
    add("--started", type=int, metavar="SECONDS", help="when the run began (date +%%s), for its duration")


def add_training_options(parser: Parser, default_config: str, kind: type[BaseConfig]) -> None:
    """The configuration, options that override its fields, and --resume."""
    sections = get_type_hints(kind)
    about_data = explanations(sections["data_config"])
    add = parser.add_argument
    add("--config", default=default_config, metavar="FILE", help="JSON file (default: %(default)s)")
    add("--training_files", metavar="FILE", help=about_data["training_files"])
    if "mels_path" in about_data:
        add("--mels_path", metavar="DIR", help=about_data["mels_path"])
    add("--resume", default="auto", metavar="auto|no|FILE", help="auto: the newest checkpoint of output_directory")
    group = parser.add_argument_group(
        "train_config", "They override --config. In brackets: the value when neither gives one."
    )
    hints, about = get_type_hints(sections["train_config"]), explanations(sections["train_config"])
    for name, metavar in TRAINING_OPTIONS.items():
        if name not in hints:  # the other model's
            continue
        default = getattr(sections["train_config"], name, None)  # none of a list
        help = about[name].replace("%", "%%") + (f" [{default}]" if default else "")
        if hints[name] is bool:
            group.add_argument(f"--{name}", action="store_true", default=None, help=help)
        else:
            read = names if hints[name] is list else hints[name] if hints[name] in (int, float) else str
            allowed = [*filter(None, choices(hints[name]) or ())] or None
            group.add_argument(f"--{name}", type=read, choices=allowed, metavar=metavar, help=help)


def names(text: str) -> list[str]:
    """``a,b`` -> [a, b]."""
    return [name.strip() for name in text.split(",") if name.strip()]


def start_log(args: argparse.Namespace) -> None:
    """Open ``<log_directory>/<number>/train_<number>.log``; the number is the rank, or with one process the card.

    The folder is this process's until the program ends; what an earlier run has left in it goes into a dated one.
    UserError if that cannot be, or another run has it.
    """
    ranks = distributed.ranks()
    number = ranks.rank if ranks.world_size > 1 else args.device_id
    # A rank that something other than common/launch.py started has nobody to speak for it, and speaks itself.
    volume = {"quiet": ranks.local_rank > 0 and has_launcher(), "only_warnings": ranks.rank > 0}
    if not args.log_directory:
        open_log(None, **volume)
        return
    folder = Path(args.log_directory, str(number))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold_folder(folder, "--log_directory")
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":  # else it goes on with the same log
            keep_earlier(folder, but=LOCK)
        open_log(folder / f"train_{number}.log", **volume)
    except OSError as error:
        raise UserError(
            f"cannot write logs to {folder}: {error.strerror}; --log_directory=DIR names another folder"
        ) from error


def configure(args: argparse.Namespace, kind: type[AnyConfig]) -> AnyConfig:
    """Load ``--config`` and apply the options to it."""
    config = load_config(args.config, kind)
    if args.training_files and args.data_path:
        raise UserError("give --data_path or --training_files, not both")
    known = {field.name for field in fields(config.train_config)}
    given = {name: value for name, value in vars(args).items() if name in known and value is not None}
    files = {name: path for name in ("training_files", "mels_path") if (path := getattr(args, name, None))}
    return replace(
        config,
        train_config=replace(config.train_config, **given),
        data_config=replace(config.data_config, **files),
    )
