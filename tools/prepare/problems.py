"""What is wrong with a data set, and how bad it is."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from common.audio import ClipError, Fault


class Kind(Enum):
    """Kinds of problems, the worst first. Those up to ``UNUSED`` leave a clip out."""

    UNREADABLE = "audio that cannot be read"
    CUT_OFF = "audio that was cut off"
    NOT_FINITE = "samples that are not finite"
    SILENT = "silence in place of speech"
    FORMAT = "audio of a form that is not read"
    NO_AUDIO = "a text without its audio"
    DOUBTFUL = "it is not clear which text belongs to which audio"
    TEXT = "no text that can be spoken"
    LENGTH = "too long or too short"
    UNUSED = "audio without a text"
    MISMATCH = "a text that hardly belongs to its audio"
    SAME_AUDIO = "the same audio twice"
    CLIPPED = "clipped"
    LOST = "signs that are not learned"
    NOISE = "much noise"
    QUIET = "very quiet originally"
    DIGITAL_SILENCE = "digital silence"
    PAUSE = "a long pause"
    BAND = "recorded at a lower sampling rate"
    SAME_TEXT = "the same text twice"
    NUMBERS = "numbers: is that what was said?"


ORDER = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True)
class Problem:
    """One problem of one clip, file or line."""

    kind: Kind
    message: str
    "Names the file or the line."
    name: str = ""
    "The clip of the data set, or the one that would have had this name; empty if none is meant."
    degree: float = 0.0
    "The larger, the worse, among those of one kind."

    @property
    def left_out(self) -> bool:
        return ORDER[self.kind] <= ORDER[Kind.UNUSED]


def worst_first(problems: Iterable[Problem]) -> list[Problem]:
    problems = [replace(problem, message=printable(problem.message)) for problem in problems]
    return sorted(problems, key=lambda problem: (ORDER[problem.kind], -problem.degree, problem.message))


def printable(text: str) -> str:
    """The text with the bytes of file names that are no UTF-8 written out."""
    return text.encode(errors="backslashreplace").decode()


def of_error(error: ClipError, name: str) -> Problem:
    """The problem that a clip cannot be used."""
    kinds = {Fault.SHORT: Kind.LENGTH, Fault.SCALED: Kind.FORMAT}
    return Problem(kinds.get(error.fault) or Kind[error.fault.name], str(error), name)
