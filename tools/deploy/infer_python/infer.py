"""Speak with engines, and report how long it takes: python -m tools.deploy.infer_python.infer --help"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from common import program
from common.corpus import read_lines
from common.files import make_output_folder, written_whole
from common.log import open_log
from common.program import Parser, UserError
from tools.deploy.artifacts import CONTENTS, Contents, add_models_dir, engine_folder, read_contents, writing
from tools.deploy.engines.engine import ENGINES, QUANT_MODES
from tools.deploy.infer_python import latency
from tools.deploy.infer_python.devices import run_on_devices
from tools.deploy.infer_python.latency import DeviceResult
from tools.deploy.infer_python.requests import of_sentence, of_text
from tools.deploy.infer_python.worker import Work
from tools.deploy.models import RANDOM

log = logging.getLogger(__name__)

DESCRIPTION = """\
Speak with the engines that tools.deploy.gen_model.build has made, and report how long it takes.

What is spoken is one English sentence, again and again, cut to the input length and given to every clip
of the batch; or, with --text and once, each line of a text. Wavs go to OUT, the report to the terminal or
to --log_file, and as JSON beside it."""

EXAMPLES = """\
  python -m tools.deploy.infer_python.infer --quant_mode force_float16 --bs 1 --il 128
  python -m tools.deploy.infer_python.infer --engine magicmind --devices 0,1 --num_iters 1000 --log_file latency.txt
  python -m tools.deploy.infer_python.infer --text story.txt --bs 4 -o story"""

OUTPUT = Path(__file__).resolve().parents[1] / "output"


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    folder, contents = find_engines(args, args.quant_mode)
    for output in (args.output, report_path(args).parent):  # before anything is measured
        make_output_folder(output)
    batches = dict.fromkeys(contents.ranges["batch"]) if args.all else [args.bs]
    text = read_lines(Path(args.text)) if args.text else None
    write_report(args, [measure(args, folder, contents, batch, text) for batch in batches])


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add_measuring_options(parser)
    add("--quant_mode", default="force_float32", choices=QUANT_MODES, help="default: %(default)s")
    add("--bs", type=int, default=1, metavar="N", help="clips in a batch (default: %(default)s)")
    add("--all", action="store_true", help="the smallest, usual and largest batch that the engines are built for")
    add("--text", metavar="FILE", help="speak this file once, each line to a wav, in place of --il, --num_iters")
    add("--log_file", type=Path, metavar="FILE", help="for the report; the JSON is FILE.json")
    args = parser.parse_args()
    check_measuring_options(parser, args)
    if args.bs < 1:
        parser.error("--bs must be at least 1")
    if args.log_file and args.log_file.is_dir():
        parser.error(f"--log_file is {args.log_file}, which is a folder")
    if args.text and (args.all or args.no_waveglow):
        parser.error("--text goes neither with --all nor with --no-waveglow")
    return args


def add_measuring_options(parser: Parser) -> None:
    """Options that perf.py has, too."""
    add = parser.add_argument
    add("--engine", default="onnxruntime", choices=ENGINES, help="default: %(default)s")
    add_models_dir(parser)
    add("--devices", type=numbers, default=[0], metavar="N,N", help="cards; on a CPU shares of it (default: 0)")
    add("--il", type=int, default=128, metavar="N", help="characters of a clip (default: %(default)s)")
    add("--no-waveglow", action="store_true", help="spectrograms only")
    add("--warmup_iters", type=int, default=3, metavar="N", help="batches before it counts (default: %(default)s)")
    add("--num_iters", type=int, default=10, metavar="N", help="batches that count, of all devices together")
    add("--sigma", type=float, default=0.6, help="scale of WaveGlow's noise (default: %(default)s)")
    add("--seed", type=int, default=1234, help="the same seed gives the same sound (default: %(default)s)")
    add("-o", "--output", type=Path, metavar="OUT", default=OUTPUT, help="for wavs and JSON (default: %(default)s)")


def check_measuring_options(parser: Parser, args: argparse.Namespace) -> None:
    """Exit 2 for what is out of range."""
    for name, smallest in (("il", 1), ("warmup_iters", 0), ("num_iters", len(args.devices)), ("seed", 0), ("sigma", 0)):
        if not smallest <= getattr(args, name) < 2**31:
            parser.error(f"--{name} must be at least {smallest}")


def numbers(text: str) -> list[int]:
    """0,1 -> [0, 1]."""
    found = text.split(",")
    if not all(part.isdecimal() for part in found) or len(set(map(int, found))) < len(found):
        raise argparse.ArgumentTypeError(f"must be numbers, each of them once, as 0,1, and not {text!r}")
    return list(map(int, found))


def find_engines(args: argparse.Namespace, quant_mode: str) -> tuple[Path, Contents]:
    """The models_dir, if engines are in it, or else the folder in it where they are by default."""
    own = (args.models_dir / CONTENTS).is_file()
    folder = args.models_dir if own else engine_folder(args.models_dir, args.engine, quant_mode)
    contents = read_contents(folder, args.engine, f"run gen_model/run.sh {quant_mode} 1 4 8 --engine={args.engine}")
    if contents.quant_mode != quant_mode:
        raise UserError(f"{folder} is {contents.quant_mode}, --quant_mode says {quant_mode}")
    return folder, contents


def measure(
    args: argparse.Namespace, folder: Path, contents: Contents, batch: int, text: list[str] | None = None
) -> dict[str, Any]:
    """Speak the text, or the sentence, on all devices; the report as JSON.

    UserError for sizes that the engines were not built for.
    """
    contents.check_range("batch", batch, "--bs")
    if text is not None:
        shares = of_text(text, contents, batch, args.devices, args.seed, args.output)
    else:
        contents.check_range("text", args.il, "--il")
        shares = of_sentence(args.il, batch, args.num_iters, args.devices, args.seed, args.output)
    works = [
        Work(
            folder, contents, device, len(shares), warmup=batches[:1] * args.warmup_iters, batches=batches,
            sigma=args.sigma, with_waveglow=not args.no_waveglow,
        )
        for device, batches in shares.items()
    ]  # fmt: skip
    facts = {
        "engine": args.engine,
        "quant_mode": contents.quant_mode,
        "batch": batch,
        "input_length": None if text is not None else args.il,
        "weights": contents.sources,
        "cost": contents.cost,
    }
    results = run_on_devices(works)
    warn_of_endless(results, contents)
    return facts | latency.report(results)


def warn_of_endless(results: dict[int, DeviceResult], contents: Contents) -> None:
    """Warn of clips that did not end by themselves. With random weights none does."""
    iterations = [iteration for measured in results.values() for iteration in measured.iterations]
    endless = sum(iteration.endless for iteration in iterations)
    if endless and contents.sources["tacotron2"] != RANDOM:
        clips = sum(iteration.batch for iteration in iterations)
        log.warning("%d of %d clips find no end and are cut off at the limit of frames", endless, clips)


def report_path(args: argparse.Namespace) -> Path:
    """Path of the JSON."""
    return args.log_file.with_name(f"{args.log_file.name}.json") if args.log_file else args.output / "latency.json"


def write_report(args: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """Write the report: as text to --log_file or the terminal, and as JSON beside it or with the wavs."""
    text, path = "\n".join(map(latency.as_text, runs)), report_path(args)
    if args.log_file:
        write(args.log_file, text)
    else:
        print(text, end="")
    write(path, json.dumps({"runs": runs}, indent=2))
    log.info("wrote %s", " and ".join(str(each) for each in (args.log_file, path) if each))


def write(path: Path, text: str) -> None:
    with writing(path), written_whole(path) as file:
        file.write(text.encode())


if __name__ == "__main__":
    program.run(main)
