"""The folder of a corpus: ``wavs/*.wav``, ``metadata.csv``, and ``corpus.json`` which says how it was made."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.audio import check_wav, write_wav
from common.corpus import read_lines
from common.files import make_output_folder, remove_leftovers, written_whole
from common.folder_lock import LOCK, hold_folder
from common.program import UserError
from tools.corpus.clips import RATE


@dataclass(frozen=True)
class Settings:
    """Settings that decide what the clips are. A corpus can only go on with the same settings."""

    engine: str
    engine_version: str
    voice: str
    seed: int
    noise_floor: float
    texts_sha256: str
    "SHA-256 of the normalized texts."


class Folder:
    """The clips that a folder holds, by the numbers of their lines."""

    def __init__(self, path: Path, settings: Settings, texts: dict[int, str]):
        """Find what is there, or begin. UserError if it holds something else, or cannot be written to."""
        self.path = path
        self.settings = settings
        self.texts = texts
        self.lengths: dict[int, int] = {}
        "Samples of each clip."
        hold_folder(make_output_folder(path))
        if (path / "corpus.json").exists():
            self._check_settings()
        elif any(each.name != LOCK for each in path.iterdir()):
            raise UserError(
                f"{path} holds files, but no corpus.json: it was not made by this program; take an empty one"
            )
        else:
            self.describe({})
        make_output_folder(path / "wavs")
        remove_leftovers(path / "wavs")
        for number in texts:
            if self.wav(number).exists():
                self._find(number)

    def name(self, number: int) -> str:
        return f"{self.settings.engine}-{number:06}"

    def wav(self, number: int) -> Path:
        return self.path / "wavs" / f"{self.name(number)}.wav"

    @property
    def seconds(self) -> float:
        return sum(self.lengths.values()) / RATE

    def add(self, number: int, audio: np.ndarray) -> None:
        write_wav(self.wav(number), audio, RATE)
        self.lengths[number] = len(audio)

    def write_metadata(self) -> None:
        lines = (f"{self.name(number)}|{self.texts[number]}\n" for number in sorted(self.lengths))
        self._write("metadata.csv", "".join(lines))

    def describe(self, facts: dict[str, Any]) -> None:
        """Write corpus.json: the settings, and what else is to be known."""
        self._write("corpus.json", json.dumps({"settings": asdict(self.settings), **facts}, indent=2) + "\n")

    def _check_settings(self) -> None:
        path = self.path / "corpus.json"
        try:
            found = dict(json.loads("\n".join(read_lines(path)))["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: take another folder, or delete this one") from error
        for name, value in asdict(self.settings).items():
            if name not in found or found[name] != value:
                raise UserError(
                    f"{self.path} was made with {name} {found.get(name)}, which is {value} now:"
                    " go on with the same options, or take another folder"
                )

    def _find(self, number: int) -> None:
        with suppress(UserError):  # damaged ones are made again
            self.lengths[number] = check_wav(self.wav(number), RATE)

    def _write(self, name: str, text: str) -> None:
        with written_whole(self.path / name) as file:
            file.write(text.encode())
