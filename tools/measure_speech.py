"""Measure how good synthesized speech is: python tools/measure_speech.py --help"""

import argparse
import logging
import math
import sys
from pathlib import Path

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import program
from common.audio import MelSpectrogram, read_wav
from common.corpus import read_transcripts
from common.evaluation import page
from common.evaluation.runner import CLIPS_ON_PAGE, clips_below, output_name, plain, write_json
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.log import console, open_log
from common.program import UserError
from tools.speech.figures import Figures, Pair, SpeechFigures, measure_all, recognize, summarize
from tools.speech.recognizer import load_recognizer, mark_errors

log = logging.getLogger(__name__)

DESCRIPTION = """\
Measure synthesized speech against recordings and texts, and make a page to listen to both.

SYNTHESIZED is a folder of wavs, 22,050 Hz and mono: <clip>.wav, or <clip>_synthesis.wav as the evaluations
write them. With --metadata the clips are those of its lines, and one that has no wav counts as missing; for
a part of a corpus give its lines alone. Without it the clips are the wavs of SYNTHESIZED.

OUT gets measure.json and index.html; docs/measuring.md says what the numbers mean. The exit code is 1 if a
clip could not be measured. Clips are held in memory: sentences, not chapters."""

EXAMPLES = """\
  python tools/measure_speech.py eval_waveglow_21000 --recordings=LJSpeech-1.1/wavs -o measured
  head -10 LJSpeech-1.1/metadata.csv > held_back.csv
  python tools/measure_speech.py eval_tacotron2_5000 --recordings=LJSpeech-1.1/wavs --metadata=held_back.csv \\
      --recognizer=faster-whisper-base -o measured"""

NAMES_SHOWN = 10

COLUMNS = {
    "word_error_rate": ("WER", ".1%"),
    "character_error_rate": ("CER", ".1%"),
    "mel_cepstral_distortion": ("MCD (dB)", ".2f"),
    "mel_l1": ("mel L1", ".3f"),
    "pitch_error": ("F0 error (cents)", ".0f"),
    "voicing_error": ("voicing error", ".1%"),
    "level_correlation": ("energy correlation", ".3f"),
    "duration_ratio": ("duration ratio", ".2f"),
    "seconds": ("seconds", ".2f"),
    "peak": ("peak", ".2f"),
    "clipped": ("clipped", ".2%"),
    "near_silence": ("near-silence", ".1%"),
}
"Title and format of what is shown of the figures."

NOTE = (
    "Worst first: by WER, then MCD, then clipping and near-silence. WER, CER: word and character error rate of texts as"
    " Whisper's authors normalize them; so they are shown below. MCD: mel cepstral distortion, after dynamic time"
    " warping; mel L1: mean distance of the natural-log mel spectrograms; F0 error: root mean square where both have"
    " voice; voicing error: share of frames where one has voice and the other has not; duration ratio: synthesized"
    " over recorded; clipped: share of samples at full scale; near-silence: share of frames below -60 dB. The last line"
    " holds means; its WER and CER are of all texts together. docs/measuring.md says more."
)


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    hear = load_recognizer(args.recognizer) if args.recognizer else None
    pairs = find_pairs(Path(args.synthesized), args.recordings, args.metadata)
    output = make_output_folder(args.output)
    hold_folder(output)
    results = measure_all(pairs)
    problems = {pair.name: str(result) for pair, result in zip(pairs, results) if isinstance(result, UserError)}
    measured = {pair: result for pair, result in zip(pairs, results) if isinstance(result, SpeechFigures)}
    show_problems(problems)
    if not measured:
        raise UserError(f"none of the {len(pairs)} clips could be measured")
    if hear:
        recognize(measured, hear)
    means, medians = summarize(measured.values())
    settings = {name: getattr(args, name) for name in ("synthesized", "recordings", "metadata", "recognizer")}
    facts = {"settings": settings, "measured": len(measured), "not_measured": problems, "median": plain(medians)}
    write_json(output / "measure.json", facts, means, measured.values())
    count = f"{len(measured)} of {len(pairs)} clips"
    if args.recordings:
        count += f", {sum(clip.warped for clip in measured.values())} of them after dynamic time warping"
    write_page(
        output / "index.html", measured, means, settings | {"measured": count, "not measured": ", ".join(problems)}
    )
    show_summary(means, medians)
    log.info("measured %s; wrote measure.json and index.html to %s", count, output)
    if problems:
        raise UserError(f"{len(problems)} of {len(pairs)} clips could not be measured; measure.json names them")


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("synthesized", metavar="SYNTHESIZED", help="folder of wavs")
    add("--recordings", metavar="DIR", help="folder of the recorded wavs; without it only what needs none is measured")
    add("--metadata", metavar="FILE", help="what is said: lines `name of the wav|text`, or LJ Speech's")
    add("--recognizer", metavar="DIR", help="a faster-whisper model, for word error rates of English; needs --metadata")
    add("-o", "--output", required=True, metavar="OUT", help="folder for measure.json and index.html")
    args = parser.parse_args()
    if args.recognizer and not args.metadata:
        parser.error("--recognizer needs --metadata, to know what was said")
    return args


def find_pairs(folder: Path, recordings: str | None, metadata: str | None) -> list[Pair]:
    """A pair for each line of the metadata, else for each wav of the folder. UserError if there are none."""
    for path in (folder, Path(recordings or folder)):
        if not path.is_dir():
            raise UserError(f"{path} is no folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.wav")):
        name = path.stem.removesuffix("_synthesis")
        if other := found.get(name):
            raise UserError(f"{other} and {path} are both of the clip {name}: remove one")
        found[name] = path
    texts = read_transcripts(Path(metadata)) if metadata else dict.fromkeys(found, "")
    if not found.keys() & texts.keys():
        raise UserError(f"{folder} holds no .wav file" + (f" that {metadata} has a line for" if metadata else ""))
    if unnamed := sorted(found.keys() - texts.keys()):
        log.warning("left out: %d wavs that %s has no line for, such as %s", len(unnamed), metadata, unnamed[0])
    return [
        Pair(
            name,
            found.get(name, folder / output_name(Path(name))),
            Path(recordings, f"{name}.wav") if recordings else None,
            text,
        )
        for name, text in texts.items()
    ]


def shown_columns(means: Figures) -> list[str]:
    """Names of the figures that were measured."""
    return [name for name in COLUMNS if not math.isnan(getattr(means, name))]


def shown(figures: Figures, column: str) -> str:
    value = getattr(figures, column)
    return "-" if math.isnan(value) else format(value, COLUMNS[column][1])


def show_problems(problems: dict[str, str]) -> None:
    for problem in list(problems.values())[:NAMES_SHOWN]:
        log.warning("not measured: %s", problem)
    if len(problems) > NAMES_SHOWN:
        log.warning("... and %d more clips", len(problems) - NAMES_SHOWN)


def show_summary(means: Figures, medians: Figures) -> None:
    console.say(f"{'':20}{'mean':>10}{'median':>10}")
    for column in shown_columns(means):
        console.say(f"{COLUMNS[column][0]:20}{shown(means, column):>10}{shown(medians, column):>10}")


def badness(clip: SpeechFigures) -> list[float]:
    """The larger, the worse; what was not measured does not count."""
    order = (clip.word_error_rate, clip.mel_cepstral_distortion, clip.clipped, clip.near_silence)
    return [0.0 if math.isnan(value) else value for value in order]


def write_page(path: Path, measured: dict[Pair, SpeechFigures], means: Figures, facts: dict[str, str | None]) -> None:
    """The table, the worst clip first, and the first clips of it to hear and read."""
    columns = shown_columns(means)
    worst_first = sorted(measured.items(), key=lambda item: badness(item[1]), reverse=True)
    entries = [
        {"name": clip.name, "figures": [shown(clip, column) for column in columns], "sounds": {}, "images": {}}
        for _, clip in worst_first
    ]
    for entry, (pair, clip) in zip(entries[:CLIPS_ON_PAGE], worst_first):
        entry["sounds"] = sounds(pair)
        if clip.said:
            entry["words"] = dict(zip(("said", "heard"), mark_errors(clip.said, clip.heard)))
        elif pair.text:
            entry["text"] = pair.text
    page.write_page(
        path,
        title="Synthesized speech, measured",
        facts={name: fact for name, fact in facts.items() if fact},
        curve="",
        columns=[COLUMNS[column][0] for column in columns],
        clips=entries,
        overall=[shown(means, column) for column in columns],
        note=NOTE + clips_below(len(entries)),
    )


def sounds(pair: Pair) -> dict[str, str]:
    """Data URIs by their captions."""
    rate = MelSpectrogram().sampling_rate
    paths = {"recorded": pair.recording, "synthesized": pair.synthesized}
    return {caption: page.as_wav(read_wav(path, rate), rate) for caption, path in paths.items() if path}


if __name__ == "__main__":
    program.run(main)
