"""Speak with engines, and report how long it takes: python -m tools.deploy.infer --help"""

import argparse
import json
import logging
from itertools import count
from pathlib import Path
from typing import Any

from common import program
from common.corpus import read_lines
from common.files import make_output_folder, written_whole
from common.log import open_log
from common.program import Parser, UserError
from tacotron2.sentences import take_apart
from tacotron2.text import text_to_sequence
from tools.deploy import latency
from tools.deploy.devices import run_on_devices
from tools.deploy.engines import ENGINES, QUANT_MODES
from tools.deploy.folder import CONTENTS, Contents, add_models_dir, engine_folder, read_contents
from tools.deploy.sentence import sentence
from tools.deploy.work import Clip, Work

log = logging.getLogger("deploy")

DESCRIPTION = """\
Speak with the engines that tools.deploy.build has made, and report how long it takes.

What is spoken is one English sentence, again and again, cut to the input length and given to every clip
of the batch; or, with --text, each line of a text. Wavs go to OUT, the report to the terminal or to
--log_file, and as JSON beside it."""

EXAMPLES = """\
  python -m tools.deploy.infer --quant_mode force_float16 --bs 1 --il 128
  python -m tools.deploy.infer --engine magicmind --devices 0,1 --num_iters 1000 --log_file latency.txt
  python -m tools.deploy.infer --text story.txt --bs 4 -o story"""

OUTPUT = Path(__file__).parent / "output"
LONGEST_PIECE = 150
"Symbols of a text that are spoken in one go, see ``tacotron2.synthesizer``."


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    folder, contents = find_engines(args, args.quant_mode)
    make_output_folder(args.output)
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
    add("--text", metavar="FILE", help="a text file to speak, each line of it to a wav")
    add("--log_file", type=Path, metavar="FILE", help="for the report; the JSON is FILE.json")
    args = parser.parse_args()
    check_measuring_options(parser, args)
    if args.bs < 1:
        parser.error("--bs must be at least 1")
    if args.text and (args.all or args.no_waveglow):
        parser.error("--text goes neither with --all nor with --no-waveglow")
    return args


def add_measuring_options(parser: Parser) -> None:
    """What perf.py has, too."""
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
    found = [int(part) for part in text.split(",")]
    if min(found) < 0 or len(set(found)) < len(found):
        raise ValueError
    return found


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
        shares = of_text(args, contents, batch, text)
    else:
        contents.check_range("text", args.il, "--il")
        shares = of_sentence(args, batch)
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
    return facts | latency.report(run_on_devices(works))


def of_sentence(args: argparse.Namespace, batch: int) -> dict[int, list[list[Clip]]]:
    """Device -> its batches: the sentence, with other random numbers in each clip."""
    shares: dict[int, list[list[Clip]]] = {device: [] for device in args.devices}
    for iteration in range(args.num_iters):
        device = args.devices[iteration % len(args.devices)]
        seeds = range(args.seed + iteration * batch, args.seed + (iteration + 1) * batch)
        text = sentence(args.il)
        shares[device].append([Clip(text, seed, args.output / f"dev{device}_{i}.wav") for i, seed in enumerate(seeds)])
    return shares


def of_text(args: argparse.Namespace, contents: Contents, batch: int, text: list[str]) -> dict[int, list[list[Clip]]]:
    """Device -> its batches: pieces of the lines of the text. UserError for one without anything to speak."""
    cleaners = contents.sizes["tacotron2"]["data_config"]["text_cleaners"]
    limit = min(LONGEST_PIECE, contents.ranges["text"][-1])
    seeds = count(args.seed)
    lines = []
    for number, line in enumerate(text, start=1):
        pieces = take_apart(line, lambda part: len(text_to_sequence(part, cleaners)), limit)
        pieces = [piece for piece in pieces if any(map(str.isalnum, piece.text))]
        wav = args.output / f"out_{number:04}.wav"
        clips = [Clip(piece.text, next(seeds), wav, piece.pause, ends=piece is pieces[-1]) for piece in pieces]
        lines += [clips] if clips else []
    if not lines:
        raise UserError(f"nothing of {args.text} can be spoken, it needs letters or digits")
    shares = {}
    for i, device in enumerate(args.devices[: len(lines)]):
        own = [clip for line in lines[i :: len(args.devices)] for clip in line]
        shares[device] = [own[begin : begin + batch] for begin in range(0, len(own), batch)]
    return shares


def write_report(args: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """As text to --log_file or the terminal, and as JSON beside it or with the wavs."""
    text = "\n".join(map(latency.as_text, runs))
    if args.log_file:
        make_output_folder(args.log_file.parent)
        with written_whole(args.log_file) as file:
            file.write(text.encode())
    else:
        print(text, end="")
    path = args.log_file.with_name(f"{args.log_file.name}.json") if args.log_file else args.output / "latency.json"
    with written_whole(path) as file:
        file.write(json.dumps({"runs": runs}, indent=2).encode())
    log.info("wrote %s", " and ".join(str(each) for each in (args.log_file, path) if each))


if __name__ == "__main__":
    program.run(main)
