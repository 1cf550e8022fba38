"""Speak text: python tools/synthesize.py --help"""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip  # noqa: F401 - before torch, see there
import soundfile
import torch
from torch import Tensor

from common import program
from common.audio import count_clipped, say_clipped
from common.corpus import read_lines
from common.device import pick_device
from common.files import is_stream, make_output_folder, remove_leftovers
from common.folder_lock import hold_folder
from common.log import open_log, progress_bar, with_progress
from common.program import UserError
from common.wav_files import wav_writer
from tacotron2.sentences import Piece
from tacotron2.synthesizer import Synthesizer
from tacotron2.text.remarks import remarks
from tools.sound import add_sound_options, check_sound_options, hints_for_both, make_vocoder

log = logging.getLogger(__name__)

DESCRIPTION = """\
Speak text with Tacotron2 and WaveGlow: with the voice that comes with the repository, or with your checkpoints.

TEXT is a text, or the name of a text file: one that exists, or that ends in .txt. "-", or no TEXT, is
standard input.
OUT decides what becomes of the text:

  OUT.wav   one wav of everything, with pauses between sentences and longer ones between lines
  OUT       a folder with a wav for each line: out_0001.wav for the first, and so on; there is none
            for a line without anything to speak

Text may hold phones of ARPAbet in braces, as in: Turn left on {HH AW1 S T AH0 N} Street."""

EXAMPLES = """\
  python tools/synthesize.py "Any text." -o out.wav
  python tools/synthesize.py "Any text." --tacotron2 tacotron2_5000 --waveglow waveglow_21000 -o out.wav
  python tools/synthesize.py "Dinner is £12 at 7:45." --cleaners=english_cleaners_v2 --tacotron2 ... -o out.wav
  python tools/synthesize.py lines.txt --tacotron2 tacotron2_5000 --waveglow waveglow_21000 -o clips
  fortune | python tools/synthesize.py --tacotron2 tacotron2_5000 -o out.wav"""

REMARKS_SHOWN = 10


@dataclass
class Wav:
    """A wav to be."""

    path: Path
    pieces: list[Piece] = field(default_factory=list)


@dataclass
class Total:
    """Totals over all wavs."""

    seconds: float = 0.0
    peak: float = 0.0
    clipped: int = 0
    "Samples at full scale."
    flawed: int = 0
    "Pieces that no try got right."


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    lines = find_lines(args.text)
    output = Path(args.output)
    prepare(output)
    hints = hints_for_both(args)
    device = pick_device(args.device)
    synthesizer = Synthesizer(args.tacotron2, device, args.amp or "", args.dictionary, hints, args.cleaners)
    vocode = make_vocoder(args, synthesizer, hints)
    clips = plan(lines, synthesizer, output)
    began = time.perf_counter()
    total = speak(clips, synthesizer, vocode, args.seed)
    elapsed = time.perf_counter() - began
    if total.flawed:
        pieces = sum(len(clip.pieces) for clip in clips)
        log.warning("%d of %d pieces of the text are flawed, listen to those named above", total.flawed, pieces)
    say_clipped(total.clipped, round(total.seconds * synthesizer.config.data_config.sampling_rate))
    log.info(
        "wrote %s: %d clip(s), %.1f s of audio in %.1f s (real-time factor %.2f), peak %.2f",
        output, len(clips), total.seconds, elapsed, elapsed / total.seconds, total.peak,
    )  # fmt: skip


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("text", nargs="*", metavar="TEXT", help="what to speak, see above")
    add_sound_options(parser)
    add("-o", "--output", required=True, metavar="OUT", help="a name that ends in .wav, or a folder")
    add("--dictionary", metavar="FILE", help="pronunciations, or cmudict (default: those of the training)")
    add("--device", default="auto", help="auto (npu, else cuda, else cpu), npu, cuda or cpu")
    args = parser.parse_args()
    check_sound_options(parser, args)
    ending = Path(args.output).suffix[1:].upper()
    if ending != "WAV" and ending in soundfile.available_formats():
        parser.error(f"-o is {args.output}, must be a name that ends in .wav, or a folder")
    return args


def is_wav(output: Path) -> bool:
    """Whether there is to be one wav, and not a folder of them."""
    return is_stream(output) or (output.suffix.lower() == ".wav" and not output.is_dir())


def prepare(output: Path) -> None:
    """UserError where no wavs can be written."""
    if not is_wav(output):
        hold_folder(make_output_folder(output))
        remove_leftovers(output)
    elif not is_stream(output):
        make_output_folder(output.parent)


def find_lines(texts: list[str]) -> dict[int, str]:
    """The lines that are not empty, by their numbers. UserError if there are none."""
    lines: list[str] = []
    for text in texts or ["-"]:
        if text == "-":
            lines += read_standard_input()
        elif text.lower().endswith(".txt") or names_no_folder(text):
            lines += read_lines(Path(text))
        else:
            lines += text.splitlines()
    found = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not found:
        raise UserError("the text is empty: give some, such as 'Any text.', a file or standard input")
    return found


def names_no_folder(text: str) -> bool:
    """Whether something other than a folder has this name; a word may well be the name of a folder."""
    try:
        return Path(text).exists() and not Path(text).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        return False


def read_standard_input() -> list[str]:
    if sys.stdin.isatty():
        log.info("reading the text from the terminal; Ctrl-D on an empty line ends it")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"standard input is not UTF-8 text: byte {error.start} is {byte:#04x}") from error


def plan(lines: dict[int, str], synthesizer: Synthesizer, output: Path) -> list[Wav]:
    """The clips and their pieces; what the text loses is logged. UserError if nothing is left."""
    clips: list[Wav] = []
    said: list[str] = []
    for number, line in with_progress(lines.items(), "reading the text", len(lines)):
        where = f"line {number}: " if len(lines) > 1 else ""
        lost = remarks(line, synthesizer.cleaners, synthesizer.alphabet, synthesizer.dictionary)
        said += [f"{where}{remark}" for remark in lost]
        pieces = synthesizer.take_apart(line)
        if not pieces:
            continue
        if not is_wav(output):
            clips.append(Wav(output / f"out_{number:04}.wav"))
        elif not clips:
            clips.append(Wav(output))
        clips[-1].pieces += pieces
    if not clips:
        raise UserError(f"nothing of the text can be spoken, it needs letters or digits: {'; '.join(said[:3])}")
    for remark in said[:REMARKS_SHOWN]:
        log.warning("%s", remark)
    if len(said) > REMARKS_SHOWN:
        log.warning("... and %d more such remarks", len(said) - REMARKS_SHOWN)
    return clips


def speak(clips: list[Wav], synthesizer: Synthesizer, vocode: Callable[[Tensor], Tensor], seed: int) -> Total:
    """Write the clips piece by piece, so that only a few pieces are in memory."""
    rate = synthesizer.config.data_config.sampling_rate
    total = Total()
    pieces = [piece for clip in clips for piece in clip.pieces]
    spoken = synthesizer.speak_pieces(pieces, seed)
    with progress_bar("speaking", len(pieces), initial=0) as bar:
        for clip in clips:
            with wav_writer(clip.path, rate) as write:
                silence = torch.zeros(0)
                for piece, result in zip(clip.pieces, spoken):
                    audio = vocode(result.utterance.mel)
                    for part in (silence, audio):
                        write(part)
                        total.seconds += len(part) / rate
                    total.peak = max(total.peak, audio.abs().max().item())
                    total.clipped += count_clipped(audio)
                    total.flawed += bool(result.flaw)
                    silence = torch.zeros(round(piece.pause * rate))
                    bar.update()
    return total


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as after Ctrl-C, no wav is left half-written
    program.run(main)
