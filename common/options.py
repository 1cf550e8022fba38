"""Command-line options that the programs share."""

import argparse
from dataclasses import fields, replace
from pathlib import Path

from common import distributed
from common.config import AnyConfig, TrainConfig, load_config
from common.log import open_log
from common.program import Parser, UserError


def add_run_options(parser: Parser) -> None:
    """Where to compute, on what, and where the scripts of test/ want their files."""
    add = parser.add_argument
    add("--data_path", default="", metavar="DIR", help="corpus with wavs/*.wav, as LJ Speech is laid out")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    add("--device_id", type=int, default=0, metavar="N", help="card to use when there is one process")
    add("--case", default="acc", choices=["acc", "perf"], help="kind of run, part of the result's name")
    add("--log_directory", metavar="DIR", help="write DIR/<rank>/train_<rank>.log and the result file there")
    add("--started", type=int, metavar="SECONDS", help="when the run began (date +%%s), for its duration")


def add_training_options(parser: Parser, default_config: str) -> None:
    """The configuration, options that override its train_config, and --resume."""
    add = parser.add_argument
    add("--config", default=default_config, metavar="FILE", help="JSON file (default: %(default)s)")
    add("--training_files", metavar="FILE", help="in place of --data_path: a list of wavs, for Tacotron2 `wav|text`")
    add(
        "--mels_path",
        metavar="DIR",
        help="WaveGlow: learn from the mels that `tacotron2.infer --teacher_forced` wrote",
    )
    add("--output_directory", metavar="DIR", help="for checkpoints and TensorBoard logs")
    add("--checkpoint_path", metavar="FILE", help="finetune from this checkpoint")
    add("--keep_optimizer", action="store_true", default=None, help="finetune with Adam's state of that checkpoint")
    add("--epochs", type=int, metavar="N")
    add("--max_steps", type=int, metavar="N", help="end after N steps")
    add("--batch_size", type=int, metavar="N", help="clips in a batch of one process")
    add("--learning_rate", type=float, metavar="X")
    add("--amp", choices=["O0", "O1", "O2"], help="precision: float32, autocast, half with float32 master weights")
    add("--loss_scale", metavar="N|dynamic", help="for float16")
    add("--workers", type=int, metavar="N", help="processes that load data, for each training process")
    add("--profile", type=int, metavar="N", help="profile N steps: <output_directory>/profile")
    add("--keep_checkpoints", type=int, metavar="N", help="how many stay, beside the best one; 0 = all")
    add("--on_save_error", choices=["stop", "continue"], help="when a checkpoint cannot be written")
    add("--on_bad_clip", choices=["stop", "skip"], help="what to do with clips that cannot be used")
    add("--hang_limit", type=int, metavar="SECONDS", help="end a process that gets nowhere for so long")
    add("--resume", default="auto", metavar="auto|no|FILE", help="auto: the newest checkpoint of output_directory")


def start_log(args: argparse.Namespace) -> None:
    """Open ``<log_directory>/<number>/train_<number>.log``: the rank, or of one process the card."""
    ranks = distributed.ranks()
    number = ranks.rank if ranks.world_size > 1 else args.device_id
    path = Path(args.log_directory, str(number), f"train_{number}.log") if args.log_directory else None
    open_log(path, quiet=ranks.rank > 0)


def configure(args: argparse.Namespace, kind: type[AnyConfig]) -> AnyConfig:
    """Load ``--config`` and apply the options to it."""
    config = load_config(args.config, kind)
    if args.training_files and args.data_path:
        raise UserError("give --data_path or --training_files, not both")
    known = {field.name for field in fields(TrainConfig)}
    given = {name: value for name, value in vars(args).items() if name in known and value is not None}
    files = {name: getattr(args, name) for name in ("training_files", "mels_path") if getattr(args, name)}
    if "mels_path" in files and not hasattr(config.data_config, "mels_path"):
        raise UserError("--mels_path is for WaveGlow: Tacotron2 makes such mels")
    return replace(
        config,
        train_config=replace(config.train_config, **given),
        data_config=replace(config.data_config, **files),
    )
