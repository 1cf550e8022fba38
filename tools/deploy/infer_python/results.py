"""Where wavs and reports go; those of an earlier run stay."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from common.files import is_stream, make_output_folder, written_whole
from common.folder_lock import hold_folder
from common.program import UserError
from tools.deploy.infer_python.latency import Run

log = logging.getLogger(__name__)

OUTPUT = Path(__file__).resolve().parents[1] / "output"
WAVS = ("dev[0-9]*_[0-9]*.wav", "out_[0-9][0-9][0-9][0-9].wav")


class Results:
    """The places of a run's wavs and report, made before anything is done. UserError if they cannot be written to.

    Args:
        output: the folder of the wavs, and of the JSON without a log file.
        log_file: for the report, with the JSON beside it; a folder, in which it is ``name`` and _log_perf, as in
            Cambricon's sample; a pipe or a device; or empty: the terminal.
        name: of the measurement.
    """

    def __init__(self, output: Path, log_file: str, name: str):
        self.text = Path(log_file) if log_file else None
        if self.text and self.text.is_dir():
            self.text /= f"{name}_log_perf"
        beside = self.text if self.text and not is_stream(self.text) else None
        self.json = beside.with_name(f"{beside.name}.json") if beside else output / "latency.json"
        hold_folder(make_output_folder(output), option="-o")
        make_output_folder(self.json.parent)
        self.output = output
        check_files(self.files())

    def files(self) -> list[Path]:
        """Those of an earlier run and those to be written."""
        return [self.json, *([self.text] if self.text else []), *wavs_in(self.output)]

    def make_room(self) -> None:
        """Set aside what an earlier run has left, once there is something to measure."""
        set_aside(self.files())

    def write(self, runs: list[Run]) -> None:
        """The report as text, to the log file or the terminal, and as JSON."""
        text = "\n".join(run.as_text() for run in runs)
        if self.text:
            write(self.text, text)
        else:
            print(text, end="")
        write(self.json, json.dumps({"runs": [run.as_json() for run in runs]}, indent=2))
        log.info("wrote %s", " and ".join(str(each) for each in (self.text, self.json) if each))


def wavs_in(output: Path) -> list[Path]:
    """The wavs of an earlier run."""
    return [path for pattern in WAVS for path in output.glob(pattern)]


def check_files(files: Iterable[Path]) -> None:
    """UserError, if there is a folder in the place of a file."""
    for path in files:
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder, move it")


def set_aside(paths: Iterable[Path]) -> None:
    """Move the files that are there, left by an earlier run, into a folder beside them with their date."""
    there = sorted({path for path in paths if path.is_file()})
    for folder, group in groupby(there, lambda path: path.parent):
        files = list(group)
        newest = time.localtime(max(path.stat().st_mtime for path in files))
        dated = folder / time.strftime("%Y-%m-%d_%H-%M-%S", newest)
        while dated.exists():
            dated = dated.with_name(f"{dated.name}_")
        try:
            dated.mkdir()
            for path in files:
                shutil.move(os.path.realpath(path), dated / path.name)  # a link stays, for what is new
        except OSError as error:
            raise UserError(f"cannot move what is in {folder} to {dated}: {error.strerror}") from error
        log.info("what an earlier run left in %s is now in %s", folder, dated)


def write(path: Path, text: str) -> None:
    with written_whole(path) as file:
        file.write(text.encode())
