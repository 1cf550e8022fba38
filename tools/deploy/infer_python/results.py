"""Where wavs and reports go; those of an earlier run stay."""

import json
import logging
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from common.files import make_output_folder, written_whole
from tools.deploy.artifacts import writing
from tools.deploy.infer_python.latency import Run

log = logging.getLogger(__name__)

OUTPUT = Path(__file__).resolve().parents[1] / "output"
WAVS = ("dev[0-9]*_[0-9]*.wav", "out_[0-9][0-9][0-9][0-9].wav")


class Results:
    """The places of a run's wavs and report, made at once: before anything is measured.

    Args:
        output: the folder of the wavs, and of the JSON without a log file.
        log_file: for the report, with the JSON beside it; a folder, in which it is ``name`` and _log_perf, as in
            Cambricon's sample; or empty: the terminal.
        name: of the measurement.
    """

    def __init__(self, output: Path, log_file: str, name: str):
        self.text = Path(log_file) if log_file else None
        if self.text and self.text.is_dir():
            self.text /= f"{name}_log_perf"
        self.json = self.text.with_name(f"{self.text.name}.json") if self.text else output / "latency.json"
        for folder in (output, self.json.parent):
            make_output_folder(folder)
        set_aside([self.json, *([self.text] if self.text else []), *(p for wavs in WAVS for p in output.glob(wavs))])

    def write(self, runs: list[Run]) -> None:
        """The report as text, to the log file or the terminal, and as JSON."""
        text = "\n".join(run.as_text() for run in runs)
        if self.text:
            write(self.text, text)
        else:
            print(text, end="")
        write(self.json, json.dumps({"runs": [run.as_json() for run in runs]}, indent=2))
        log.info("wrote %s", " and ".join(str(each) for each in (self.text, self.json) if each))


def set_aside(paths: Iterable[Path]) -> None:
    """Move the files that are there, left by an earlier run, into a folder beside them with their date."""
    there = sorted({path for path in paths if path.is_file()})
    for folder, group in groupby(there, lambda path: path.parent):
        files = list(group)
        newest = time.localtime(max(path.stat().st_mtime for path in files))
        dated = folder / time.strftime("%Y-%m-%d_%H-%M-%S", newest)
        while dated.exists():
            dated = dated.with_name(f"{dated.name}_")
        with writing(dated):
            dated.mkdir()
            for path in files:
                path.rename(dated / path.name)
        log.info("what an earlier run has left in %s is now in %s", folder, dated)


def write(path: Path, text: str) -> None:
    with writing(path), written_whole(path) as file:
        file.write(text.encode())
