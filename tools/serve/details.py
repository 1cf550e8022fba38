"""What the page shows of a piece beside its audio: mel spectrogram, alignment and gate, small enough to be sent."""

import base64
from typing import Any

from torch import Tensor

from tacotron2.synthesizer import Spoken

STEPS = 255
"Levels of a picture's points, less one."


def describe(spoken: Spoken) -> dict[str, Any]:
    """The server-sent event of a piece: its text, what is wrong with it, and its pictures."""
    utterance = spoken.utterance
    return {
        "type": "speech.piece",
        "text": spoken.text,
        "flaw": spoken.flaw,
        "frames": utterance.length,
        "mel": picture(utterance.mel, float(utterance.mel.min()), float(utterance.mel.max())),
        "alignment": picture(utterance.alignment.t(), 0.0, 1.0),
        "gate": [round(probability, 4) for probability in utterance.gate.tolist()],
    }


def picture(values: Tensor, low: float, high: float) -> dict[str, Any]:
    """[rows, columns] -> a byte a point, row after row: 0 for ``low`` and less, 255 for ``high`` and more."""
    levels = ((values - low) / max(high - low, 1e-6) * STEPS).round().clamp(0, STEPS).byte()
    return {
        "rows": levels.shape[0],
        "columns": levels.shape[1],
        "data": base64.b64encode(levels.contiguous().numpy().tobytes()).decode(),
    }
