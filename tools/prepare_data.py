"""Make a data set from your own recordings: python tools/prepare_data.py --help"""

import argparse
import logging
import os
import signal
import sys
from collections import Counter
from pathlib import Path

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import program
from common.config_reading import load_config
from common.folder_lock import sole_writer
from common.log import console, open_log
from common.program import StopSignal, UserError
from tacotron2.config import Config, DataConfig
from tools.prepare.clips import convert_all
from tools.prepare.convert import Recipe
from tools.prepare.folder import Folder
from tools.prepare.problems import printable, worst_first
from tools.prepare.report import PAGE, PROBLEMS, Report, describe, problem_lines, write_problems, write_report
from tools.prepare.sources import Source, find_source
from tools.prepare.suspicions import judge_clips
from tools.prepare.texts import count_symbols, find_signs, judge_texts

log = logging.getLogger(__name__)

DESCRIPTION = """\
Make a data set for both models from your recordings, whatever their form, and say what is wrong with them.

SOURCE is a folder, with subfolders or without, that holds metadata.csv (2, 3 or 4 columns, with a speaker, a header
or quotation marks, in any encoding), or pairs a.wav and a.txt, or audio alone (for WaveGlow); or it is a list with
`path|text` lines, as NVIDIA's are. Audio is WAV, FLAC, OGG, MP3 and the like, of any rate and number of channels.

TARGET gets LJ Speech's layout: wavs/*.wav, metadata.csv. Clips are brought to one channel, rate and level, silence at
the edges is trimmed; what cannot be used is left out. Beside it:

  index.html     what was measured, and what to look at and listen to
  problems.txt   all that is wrong, the worst first
  clips.csv      what was done to each clip
  report.json    everything in numbers

SOURCE stays as it is. Nothing in TARGET changes before all of it is made. The same command continues where it
stopped; after some texts or recordings were corrected it converts only what is new."""

EXAMPLES = """\
  python tools/prepare_data.py recordings data --dry_run
  python tools/prepare_data.py recordings data
  python tools/prepare_data.py filelists/train.txt data --audio=wavs --speaker=anna
  python tools/prepare_data.py aufnahmen daten --config=german.json --encoding=cp1252 --columns=name,-,text"""

MESSAGES_SHOWN = 5


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    stop = StopSignal(signal.SIGINT, signal.SIGTERM)
    config = load_config(args.config, Config).data_config if args.config else DataConfig()
    recipe = Recipe(config.sampling_rate, args.level, args.trim_margin, args.min_seconds, args.max_seconds)
    check_apart(args.source, args.target)
    source = of_one_speaker(find_source(args.source, args.audio, args.columns, args.encoding), args.speaker)
    for fact in source.facts:
        log.info("%s", printable(fact))
    if args.dry_run:
        prepare(source, Folder(args.target), recipe, config, args, stop)
        return
    make_folder(args.target)
    with sole_writer(args.target):
        prepare(source, Folder(args.target), recipe, config, args, stop)


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    recipe = Recipe()
    add("source", type=Path, metavar="SOURCE", help="a folder, or a list with `path|text` lines")
    add("target", type=Path, metavar="TARGET", help="the folder to make, or one that this program made")
    add("--dry_run", action="store_true", help="look at everything and say all that is wrong; write nothing")
    add("--config", metavar="FILE",
        help="Tacotron2's, for its sampling rate and text cleaners (default: 22,050 Hz, English)")  # fmt: skip
    add("--audio", type=Path, metavar="DIR", help="where the audio is, if not in the list's folder or below")
    add("--columns", default="", metavar="NAMES",
        help="what the columns are, if the guess is wrong: name,text,- or speaker,name,text")  # fmt: skip
    add("--encoding", default="", metavar="NAME", help="of the texts, if the guess is wrong: cp1251, shift_jis, ...")
    add("--speaker", metavar="NAME", help="take only the clips of this speaker")
    add("--level", type=number_or_keep, default=recipe.level, metavar="DB|keep",
        help="of the speech in each clip, root mean square in dB of full scale (default: %(default)g)")  # fmt: skip
    add("--trim_margin", type=number_or_keep, default=recipe.margin, metavar="S|keep",
        help="seconds of silence that stay at the edges (default: %(default)g)")  # fmt: skip
    add("--min_seconds", type=float, default=recipe.shortest, metavar="S", help="shorter clips are left out"
        " (default: %(default)g)")  # fmt: skip
    add("--max_seconds", type=float, default=recipe.longest, metavar="S", help="longer clips are left out"
        " (default: %(default)g)")  # fmt: skip
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
        help="processes (default: one for each core, here %(default)s)")  # fmt: skip
    args = parser.parse_args()
    if args.level is not None and not -60 <= args.level <= 0:
        parser.error(f"--level is {args.level:g}, must be from -60 to 0, or keep")
    if args.trim_margin is not None and not 0 <= args.trim_margin <= 10:
        parser.error(f"--trim_margin is {args.trim_margin:g}, must be from 0 to 10, or keep")
    if not 0 <= args.min_seconds < args.max_seconds < float("inf"):
        parser.error("--min_seconds must be 0 or above, and below --max_seconds")
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}, must be 1 or above")
    return args


def number_or_keep(value: str) -> float | None:
    return None if value == "keep" else float(value)


def check_apart(source: Path, target: Path) -> None:
    """UserError if one of them lies in the other."""
    ours, theirs = Path(os.path.realpath(target)), Path(os.path.realpath(source))
    if ours == theirs or theirs in ours.parents or ours in theirs.parents:
        raise UserError(f"one of SOURCE {source} and TARGET {target} lies in the other: take a target outside")


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from error


def of_one_speaker(source: Source, speaker: str | None) -> Source:
    """The source with the clips of one speaker. If none is named, several are reported."""
    counts = Counter(item.speaker for item in source.items)
    if speaker is None:
        if len(counts) > 1:
            some = ", ".join(f"{name or '(none)'} {count}" for name, count in counts.most_common(5))
            log.warning("%d speakers (%s), but a voice is one: choose it with --speaker=NAME", len(counts), some)
        return source
    if speaker not in counts:
        raise UserError(f"there is no speaker {speaker!r}; there are {', '.join(sorted(counts)[:20]) or 'none'}")
    source.items = [item for item in source.items if item.speaker == speaker]
    return source


def prepare(
    source: Source, folder: Folder, recipe: Recipe, config: DataConfig, args: argparse.Namespace, stop: StopSignal
) -> None:
    """Everything but reading the source."""
    symbols, problems = count_symbols(source.items, config)
    if not args.dry_run:
        folder.begin()
    usable = [item for item in source.items if item.text is None or item.name in symbols]
    clips, bad = convert_all(usable, recipe, folder, args.jobs, args.dry_run, stop)
    if stop.requested:
        log.warning("stopped by a signal; the same command goes on from here")
        sys.exit(128 + stop.requested)
    items = {item.name: item for item in source.items}
    used = [items[name] for name in clips]
    signs = find_signs([item.text for item in used if item.text], config)
    problems += source.problems + bad + judge_texts(used, signs, config)
    problems += judge_clips({name: clip.figures for name, clip in clips.items()}, symbols, recipe.sampling_rate)
    title = f"Data set {args.target.resolve().name}"
    report = Report(title, recipe, source.facts, items, clips, symbols, signs, problems)
    say_problems(report, args)
    if not clips:
        where = ", see above"
        if not args.dry_run:
            write_problems(report, args.target)
            where = f", see {args.target / PROBLEMS}"
        raise UserError(f"none of the {len(items)} clips can be used" + where)
    if not args.dry_run:
        folder.finish({item.name: item for item in used}, {"made": describe(recipe), "source": str(args.source)})
        write_report(report, args.target)
    say_result(report, args)


def say_problems(report: Report, args: argparse.Namespace) -> None:
    """All of them in a dry run, else the worst, since the others stand in a file."""
    lines = problem_lines(report.problems)
    if args.dry_run:
        for line in lines:
            console.say(line)
        return
    for line in lines[:MESSAGES_SHOWN]:
        log.warning("%s", line)
    if len(lines) > MESSAGES_SHOWN:
        log.warning("... and %d more in %s", len(lines) - MESSAGES_SHOWN, args.target / PROBLEMS)


def say_result(report: Report, args: argparse.Namespace) -> None:
    count = f"{len(report.clips)} clips, {report.hours:.2f} h"
    if report.left_out:
        count += f"; {report.left_out} left out"
    looks = sum(not problem.left_out for problem in worst_first(report.problems))
    if args.dry_run:
        log.info("%s would hold %s, %d things to look at; nothing was written", args.target, count, looks)
        return
    log.info("%s holds %s, %d things to look at: %s", args.target, count, looks, args.target / PAGE)
    if not report.symbols:
        log.info("there are no texts: WaveGlow can be trained with it, Tacotron2 cannot")
    log.info("train with --data_path=%s", args.target)


if __name__ == "__main__":
    program.run(main)
