"""Options that several programs of the deployment have, in one syntax."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.checkpoints import TITLES
from common.hints import add_hint_options
from common.program import Parser
from common.voices import DEFAULT
from tools.deploy.engines.engine import ENGINES, QUANT_MODES
from tools.deploy.export_model.opset import OPSETS

LARGEST_BATCH = 1024
ALIASES = {"qint8_mixed_float16": "int8"}
"Cambricon's names for quant modes that have other names here."


class Numbers(argparse.Action):
    """Whole numbers, with blanks or commas between them: ``0,1``, ``"0 1"`` and ``0 1`` are the same."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        parts = " ".join(values).replace(",", " ").split()
        if not parts or not all(part.isdecimal() for part in parts):
            raise argparse.ArgumentError(self, f"must be numbers, such as 0,1, not {' '.join(values)!r}")
        setattr(namespace, self.dest, list(map(int, parts)))


def add_numbers(parser: Parser, *names: str, dest: str, default: Sequence[int] | None, help: str) -> None:
    parser.add_argument(*names, dest=dest, nargs="+", action=Numbers, metavar="N", default=default, help=help)


def add_models_dir(parser: Parser) -> None:
    """``--models_dir``, by default what env.sh says."""
    default = Path(os.environ.get("MODEL_PATH") or Path(__file__).parent / "models")
    what = "folder of checkpoints, graphs and engines (default: $MODEL_PATH, else tools/deploy/models)"
    parser.add_argument("--models_dir", type=Path, metavar="DIR", default=default, help=what)


def add_engine(parser: Parser) -> None:
    parser.add_argument("--engine", default="onnxruntime", choices=ENGINES, help="default: %(default)s")


def quant_mode(name: str) -> str:
    """A quant mode by its name here or by Cambricon's."""
    return ALIASES.get(name, name)


def add_quant_mode(parser: Parser, default: str) -> None:
    what = "default: %(default)s; qint8_mixed_float16 is int8"
    parser.add_argument("--quant_mode", type=quant_mode, default=default, choices=QUANT_MODES, help=what)


def add_checkpoint_options(parser: Parser) -> None:
    for kind, title in TITLES.items():
        what = f"checkpoint of {title}, of any form; or {DEFAULT}/{kind}"
        parser.add_argument(f"--{kind}", metavar="FILE", help=what)
    parser.add_argument("--voice", metavar="NAME", help=f"both checkpoints of a voice in voices/, such as {DEFAULT}")
    what = "random weights at full size, to measure speed; all that is made of them goes to DIR/random"
    parser.add_argument("--random", action="store_true", help=what)
    add_hint_options(parser, speech=True)


def check_checkpoint_options(parser: Parser, args: argparse.Namespace) -> None:
    """Exit 2 for what does not go together; with ``--random`` the models_dir becomes its folder ``random``."""
    if args.voice and args.tacotron2:
        parser.error("--voice and --tacotron2 exclude each other: a voice has its own")
    if args.random and (args.voice or args.tacotron2 or args.waveglow):
        parser.error("--random does not go with a checkpoint")
    if args.random:
        args.models_dir /= "random"


def add_opset(parser: Parser) -> None:
    what = f"ONNX's operators of which version (default: {OPSETS[0]}, which every engine knows)"
    parser.add_argument("--opset", type=int, choices=OPSETS, help=what)


def add_build_options(parser: Parser) -> None:
    what = "build configuration, also MagicMind's own (default: configs/deploy.json)"
    parser.add_argument("--json", type=Path, metavar="FILE", help=what)


def add_measuring_options(parser: Parser, batches: list[int], output: Path) -> None:
    add = parser.add_argument
    shown = ",".join(map(str, batches))
    what = f"clips at once; of several sizes, each is measured (default: {shown})"
    add_numbers(parser, "--bs", "-bs", "--batch-size", dest="bs", default=batches, help=what)
    what = "cards; on a CPU shares of it (default: 0)"
    add_numbers(parser, "--devices", "--device", dest="devices", default=[0], help=what)
    add("--il", "-il", "--input-length", type=int, default=128, metavar="N", help="characters (default: %(default)s)")
    add("--no-waveglow", "--no_waveglow", action="store_true", help="spectrograms only")
    add("--warmup_iters", "--warmup-iters", type=int, default=3, metavar="N", help="uncounted (default: %(default)s)")
    what = "batches that count, of all devices together (default: %(default)s)"
    add("--num_iters", "--num-iters", type=int, default=10, metavar="N", help=what)
    add("--sigma", "-s", "--sigma-infer", type=float, help="of WaveGlow's noise (default: the voice's, else 0.6)")
    add("--seed", type=int, default=1234, help="the same seed gives the same sound (default: %(default)s)")
    add("-o", "--output", type=Path, metavar="OUT", default=output, help="for wavs and JSON (default: %(default)s)")


def check_measuring_options(parser: Parser, args: argparse.Namespace) -> None:
    """Exit 2 for what is out of range."""
    for name in ("devices", "bs"):
        values = getattr(args, name)
        if len(set(values)) < len(values):
            parser.error(f"argument --{name}: name each once, as in 0,1, and not {' '.join(map(str, values))!r}")
    for name, smallest in (("il", 1), ("warmup_iters", 0), ("num_iters", len(args.devices)), ("seed", 0), ("sigma", 0)):
        value = getattr(args, name)
        if value is not None and not smallest <= value < 2**31:
            parser.error(f"--{name} must be at least {smallest} and below 2**31")
    check_batches(parser, args.bs)


def check_batches(parser: Parser, batches: Sequence[int]) -> None:
    """Exit 2 for batches that no engine takes: WaveGlow alone needs some 0.3 GB for a clip."""
    for batch in batches:
        if not 1 <= batch <= LARGEST_BATCH:
            parser.error(f"--bs is {batch}, must be 1 to {LARGEST_BATCH}")


def add_options_of_all_stages(parser: Parser, batches: list[int], output: Path) -> None:
    """For a program that goes from checkpoints to measurements; ``check_options_of_all_stages`` looks at them."""
    add_checkpoint_options(parser)
    add_models_dir(parser)
    add_opset(parser)
    add_engine(parser)
    add_build_options(parser)
    add_measuring_options(parser, batches, output)


def check_options_of_all_stages(parser: Parser, args: argparse.Namespace) -> None:
    check_checkpoint_options(parser, args)
    check_measuring_options(parser, args)


def add_log_file(parser: Parser) -> None:
    what = "for the report; the JSON is FILE.json; or a folder for both (default: the terminal)"
    parser.add_argument("--log_file", metavar="FILE", default="", help=what)
