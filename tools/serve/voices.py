"""The voices that are served: loaded when they are first asked for, within a limit of memory."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.hints import Hints
from common.program import UserError
from common.voices import Settings
from tools.serve.errors import RefusalError
from tools.serve.speaker import Speaker

log = logging.getLogger(__name__)

RETRY_AFTER = 5
"Seconds after which a client may try again if there was no room for its voice."
LATELY = 10.0
"Seconds for which a voice is kept after a request for it, even if it does not speak yet."


@dataclass(frozen=True)
class Entry:
    """A voice that can be loaded: from two checkpoints, or from engines."""

    name: str
    settings: Settings
    rate: int
    "Samples a second."
    tacotron2: str | Path = ""
    waveglow: str | Path = ""
    hints: Hints = field(default_factory=dict)
    "What the checkpoints do not say."
    engines: Path | None = None
    "Folder of the engines, if there are no checkpoints."


class Voices:
    """Speakers by name; the first of ``entries`` is the default.

    ``load`` makes a speaker, in a thread. When the weights of all take more than ``memory`` bytes, those that have
    been idle for longest are dropped; while one is being loaded, it may be there in addition.
    """

    def __init__(self, entries: Sequence[Entry], load: Callable[[Entry], Speaker], memory: float):
        self.entries = {entry.name: entry for entry in entries}
        self.default = entries[0].name
        self.memory = memory
        self._load = load
        self._speakers: dict[str, Speaker] = {}
        "In the order in which they were last asked for."
        self._asked: dict[str, float] = {}
        self._loading = asyncio.Lock()

    def entry(self, name: str) -> Entry:
        """The voice of this name, or the default for none. RefusalError for an unknown name."""
        if name and name not in self.entries:
            raise RefusalError(400, f"there is no voice {name[:40]!r}: choose from {', '.join(self.entries)}", "voice")
        return self.entries[name or self.default]

    async def speaker(self, entry: Entry) -> Speaker:
        """The voice, loaded. RefusalError if it cannot be, or there is no room for it now."""
        if entry.name not in self._speakers:
            async with self._loading:
                if entry.name not in self._speakers:
                    await self._make(entry)
        self._asked[entry.name] = time.monotonic()
        self._speakers[entry.name] = self._speakers.pop(entry.name)
        return self._speakers[entry.name]

    async def _make(self, entry: Entry) -> None:
        busy = sum(speaker.bytes for name, speaker in self._speakers.items() if self._is_busy(name))
        if busy >= self.memory:
            retry = {"Retry-After": str(RETRY_AFTER)}
            raise RefusalError(429, f"other voices are speaking, and there is no room for {entry.name}", headers=retry)
        try:
            speaker = await asyncio.to_thread(self._load, entry)
        except UserError as error:
            log.error("the voice %s cannot be loaded: %s", entry.name, error)
            raise RefusalError(500, f"the voice {entry.name} cannot be loaded, the service's log says why") from error
        self._speakers[entry.name] = speaker
        self._asked[entry.name] = time.monotonic()
        for name in list(self._speakers):
            if sum(each.bytes for each in self._speakers.values()) > self.memory and not self._is_busy(name):
                log.info("no room for the voice %s any more: it will be loaded again when it is asked for", name)
                await asyncio.to_thread(self._speakers.pop(name).close)

    def _is_busy(self, name: str) -> bool:
        return bool(self._speakers[name].active) or time.monotonic() - self._asked[name] < LATELY

    @property
    def active(self) -> int:
        """How many texts wait or are being spoken."""
        return sum(len(speaker.active) for speaker in self._speakers.values())

    def close(self) -> None:
        for speaker in self._speakers.values():
            speaker.close()
