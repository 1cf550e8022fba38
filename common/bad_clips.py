"""What is wrong with the clips of a corpus, gathered so that all of it is reported at once."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from common import distributed
from common.audio import ClipError, Fault
from common.files import written_whole
from common.program import UserError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

NAME = "bad_clips.txt"
HINT = " (--on_bad_clip=skip leaves them out; python tools/prepare_data.py makes a data set of what you have)"
SHOWN = 3
"Faults in the message; the file has all."


@dataclass
class BadClips:
    """Faults of clips, and of the lines of their transcripts."""

    on_bad_clip: str = "stop"
    "Whether they end the program (stop), or are left out (skip)."
    folder: Path | None = None
    "Where the whole list is written to."
    faults: dict[str, Fault] = field(default_factory=dict)
    "By their messages."
    paths: set[Path] = field(default_factory=set)
    "The clips among them."

    def add(self, message: str, fault: Fault, path: Path | None = None) -> None:
        self.faults[message] = fault
        if path:
            self.paths.add(path)

    def add_error(self, error: ClipError, path: Path) -> None:
        self.add(str(error), error.fault, path)

    def gather(self, clips: list[Path]) -> None:
        """Learn what the other processes have found among these clips, which may be in other folders there."""
        own = [number for number, clip in enumerate(clips) if clip in self.paths]
        everyones = distributed.gather_objects((self.faults, own))
        self.faults = {message: fault for faults, _ in everyones for message, fault in faults.items()}
        self.paths |= {clips[number] for _, numbers in everyones for number in numbers}

    def worst_first(self) -> list[str]:
        return sorted(self.faults, key=lambda message: -self.faults[message])

    def settle(self, total: int) -> None:
        """Report what was found in ``total`` clips. UserError, unless bad clips are to be skipped.

        A list that an earlier run left in the folder is removed if nothing is wrong.
        """
        if not self.faults:
            self._write("")
            return
        messages = self.worst_first()
        what = f"{len(self.paths)} of {total} clips cannot be used" if self.paths else "the transcripts have faults"
        said = f"{what}: " if len(messages) > 1 or self.paths else ""
        said += "; ".join(messages[:SHOWN]) + ("; ..." if len(messages) > SHOWN else "")
        if self._write("".join(f"{message}\n" for message in messages)):
            said += f" (all {len(messages)}, the worst first: {self.folder}/{NAME})"
        if self.on_bad_clip == "stop":
            raise UserError(said + HINT * bool(self.folder))
        log.warning("left out: %s", said)

    def without(self, clips: Iterable[Item], what: str) -> list[Item]:
        """The clips (paths, or what has a ``path``) that can be used. UserError if there are none."""
        left = [clip for clip in clips if getattr(clip, "path", clip) not in self.paths]
        if not left:
            raise UserError(f"none of the {what} clips can be used")
        return left

    def _write(self, content: str) -> bool:
        """Whether there is a file now."""
        if not self.folder:
            return False
        path = self.folder / NAME
        if distributed.ranks().rank > 0:
            return bool(content)
        try:
            if not content:
                path.unlink(missing_ok=True)
                return False
            with written_whole(path) as file:
                file.write(content.encode(errors="backslashreplace"))
        except OSError as error:
            log.warning("cannot write %s: %s", path, error.strerror)
            return False
        return True
