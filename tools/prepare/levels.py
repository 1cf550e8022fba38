"""Where a recording speaks, how loud, and over what noise."""

from dataclasses import dataclass

import numpy as np

from common.evaluation.metrics import frame_levels

WINDOW, HOP = 0.046, 0.0116
"Seconds of a frame, and from one to the next: 1024 and 256 samples at 22,050 Hz."
LOUD = 95
"The percentile of a clip's frame levels that its loudest speech has; clicks have higher ones."
BELOW_LOUD = 25.0
"dB below that down to which a frame counts for the level of speech."
QUIETEST = 35.0
"dB below the level of speech that its softest consonants have."
ABOVE_FLOOR = 6.0
"dB above the noise floor from which on something is no noise."
LEAST = 9.0
"dB below the level of speech: what is louder is speech in any noise."
FEWEST_QUIET = 3
"Frames, at least, in which the noise floor is measured; a fiftieth of a clip's if that is more."
DIGITAL_SILENCE = -90.0
"dB; a frame below it was not recorded."


@dataclass(frozen=True)
class Levels:
    """Levels in dB of full scale."""

    frames: np.ndarray
    "[T], root mean squares."
    hop: int
    "Samples from one frame to the next."
    speech: float
    "The mean power of the loud frames."
    floor: float
    "Of the quietest frames, without digital silence."

    @property
    def speaks(self) -> np.ndarray:
        """Whether there is more than noise in each frame [T]."""
        over_noise = min(self.floor + ABOVE_FLOOR, self.speech - LEAST)
        return self.frames > max(self.speech - QUIETEST, over_noise)

    def longest_pause(self, sampling_rate: int) -> float:
        """Seconds, between the first and the last frame that speaks."""
        gaps = np.diff(np.flatnonzero(self.speaks))
        return float((gaps.max(initial=1) - 1) * self.hop / sampling_rate)


def find_levels(audio: np.ndarray, sampling_rate: int) -> Levels:
    """The levels of samples [N] in -1..1."""
    hop = round(HOP * sampling_rate)
    frames = frame_levels(audio, round(WINDOW * sampling_rate), hop)
    loud = frames[frames > np.percentile(frames, LOUD) - BELOW_LOUD]
    recorded = frames[frames > DIGITAL_SILENCE]
    quiet = np.sort(recorded)[: max(FEWEST_QUIET, len(recorded) // 50)]
    floor = float(quiet.mean()) if len(quiet) else DIGITAL_SILENCE
    return Levels(frames, hop, float(10 * np.log10(np.mean(10 ** (loud / 10)))), floor)


def speech_edges(levels: Levels, count: int, margin: int) -> tuple[int, int]:
    """From which sample to which a clip of ``count`` samples speaks, with a margin of so many."""
    speaks = np.flatnonzero(levels.speaks)
    start, end = int(speaks[0]) * levels.hop - margin, (int(speaks[-1]) + 1) * levels.hop + margin
    return max(0, start), min(count, end)
