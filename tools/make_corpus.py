"""Make a corpus from text: python tools/make_corpus.py --help"""

import argparse
import hashlib
import logging
import os
import shlex
import signal
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import program
from common.log import open_log, progress_bar
from common.program import StopSignal, UserError
from tools.corpus.clips import make_clips
from tools.corpus.engines import ENGINES, Engine
from tools.corpus.texts import find_texts

if TYPE_CHECKING:
    from tools.corpus.folder import Folder

log = logging.getLogger(__name__)

DESCRIPTION = """\
Make a corpus from text, to train both models without any recordings.

DIR gets LJ Speech's layout: wavs/*.wav (22,050 Hz, 16 bit, mono), metadata.csv (name|text), and corpus.json,
which says how it was made. The texts are those of LJ Speech, or yours; numbers, abbreviations and signs are
written out before they are spoken, and so they stand in metadata.csv. These engines speak them:

  hibari      pip install -r requirement-corpus.txt   voices: heart, inside; emma fable fenrir kore, downloaded
  espeak-ng   apt-get install espeak-ng               voices: espeak-ng --voices=en
  flite       apt-get install flite                   voices: flite -lv

Lines are spoken in their order until there is enough. The same command goes on where it was, or with more
--hours. The same options give the same corpus, however many --jobs there are and however often it was stopped."""

EXAMPLES = """\
  python tools/make_corpus.py corpus --hours=8
  python tools/make_corpus.py evaluation --held_back
  python tools/make_corpus.py corpus_slt --engine=flite --voice=slt --texts=sentences.txt --hours=2"""


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    stop = StopSignal(signal.SIGINT, signal.SIGTERM)
    texts = find_texts(args.texts, args.held_back)
    engine = ENGINES[args.engine](args.voice)
    engine.load()("Hello.", 0)  # what is wrong with the engine, or with the voice, comes out here
    folder = open_folder(args, engine, texts)
    there = len(folder.lengths)
    if there:
        log.info("%s holds %d clips, %.2f h of audio, already", args.directory, there, folder.seconds / 3600)
    began, seconds_there = time.perf_counter(), folder.seconds
    left_out: Counter[str] = Counter()
    try:
        fill(folder, engine, args, left_out, stop)
    finally:  # whatever ended it: what is there can be used
        finish(folder, engine, left_out)
    elapsed = time.perf_counter() - began
    say_result(folder, left_out, args.hours, stop)
    if made := len(folder.lengths) - there:
        rate = (folder.seconds - seconds_there) / elapsed
        log.info("made %d clips in %.0f s, %.0f times as fast as they are spoken", made, elapsed, rate)
    if stop.requested:
        sys.exit(128 + stop.requested)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="the folder to make, or to go on with")
    add("--hours", type=float, default=8.0, metavar="H", help="of audio (default: %(default)g)")
    add("--engine", default="hibari", choices=ENGINES, help="what speaks (default: %(default)s)")
    add("--voice", default="", help="default: heart of hibari, en-us of espeak-ng, slt of flite")
    add("--texts", type=Path, metavar="FILE", help="a sentence on each line (default: 13,000 of LJ Speech's)")
    add("--held_back", action="store_true",
        help="speak the 100 sentences of LJ Speech that no other corpus of the default texts has")  # fmt: skip
    add("--noise_floor", type=float, default=-60.0, metavar="DB",
        help="RMS of the noise added to each clip, in dB of full scale (default: %(default)g)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the random numbers (default: %(default)s)")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
        help="processes (default: a process for each core, here %(default)s)")  # fmt: skip
    args = parser.parse_args()
    if not 0 < args.hours < float("inf"):
        parser.error(f"--hours is {args.hours}, must be above 0")
    if not -120 <= args.noise_floor <= -20:
        parser.error(f"--noise_floor is {args.noise_floor}, must be from -120 to -20")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed is {args.seed}, must be from 0 to 4294967295")
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}, must be 1 or above")
    if args.texts and args.held_back:
        parser.error("--held_back is about the default texts, and does not go with --texts")
    return args


def open_folder(args: argparse.Namespace, engine: Engine, texts: dict[int, str]) -> "Folder":
    from tools.corpus.folder import Folder, Settings  # they load PyTorch, which each process would do, too

    texts_sha256 = hashlib.sha256("\n".join(f"{number}|{text}" for number, text in texts.items()).encode()).hexdigest()
    settings = Settings(engine.name, engine.version, engine.voice, args.seed, args.noise_floor, texts_sha256)
    return Folder(args.directory, settings, texts)


def fill(folder: "Folder", engine: Engine, args: argparse.Namespace, left_out: Counter, stop: StopSignal) -> None:
    """Make the missing clips in the order of their lines until there is enough; count what is left out."""
    last = max(folder.lengths, default=0)
    missing = [(number, text) for number, text in folder.texts.items() if number not in folder.lengths]
    wanted = round(args.hours * 3600)
    clips = make_clips(engine, missing, args.seed, args.noise_floor, args.jobs, stop)
    with closing(clips), progress_bar("seconds of audio", wanted, round(folder.seconds)) as bar:
        for number, _ in missing:
            # Gaps before the last clip are lines that were left out, or clips that were damaged.
            if number > last and folder.seconds >= args.hours * 3600:
                break
            clip = next(clips, None)
            if clip is None:  # stopped
                break
            if isinstance(clip, str):
                left_out[clip] += 1
            else:
                folder.add(number, clip)
            bar.set_description(f"{folder.seconds / 3600:.2f} h of audio")
            bar.update(round(folder.seconds) - bar.n)


def finish(folder: "Folder", engine: Engine, left_out: Counter) -> None:
    if folder.lengths:
        folder.write_metadata()
    folder.describe(
        {
            "licence_of_engine": engine.licence,
            "clips": len(folder.lengths),
            "hours": round(folder.seconds / 3600, 4),
            "left_out": left_out,
            "command": shlex.join(["python", *sys.argv]),
        }
    )


def say_result(folder: "Folder", left_out: Counter, hours: float, stop: StopSignal) -> None:
    """UserError if there is nothing."""
    for reason, count in sorted(left_out.items()):
        log.warning("left out: %d text(s) %s", count, reason)
    if stop.requested:
        log.warning("stopped by a signal; the same command goes on from here")
    elif not folder.lengths:
        raise UserError("none of the texts became a clip")
    elif folder.seconds < hours * 3600:
        log.warning("the texts are all used, and make less than the %g h of --hours", hours)
    log.info("%s holds %d clips, %.2f h of audio", folder.path, len(folder.lengths), folder.seconds / 3600)


if __name__ == "__main__":
    program.run(main)
