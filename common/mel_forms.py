"""What the numbers of a mel spectrogram can mean, and how those that other programs write become natural logarithms.

Here a mel spectrogram is the natural logarithm of amplitudes, clamped at 1e-5. Others store amplitudes, powers,
common logarithms, decibels, or decibels stretched to a range (Wang et al.'s Tacotron in Keith Ito's and Rayhane
Mamah's form: -100 to 0 dB below a reference of 20 dB). Filters applied to powers, as librosa's are by default, give the
mean of squares in place of the square of the mean, and the filters' sum once in place of twice. The conversion corrects
for the sum, not for the difference between the two means. The numbers do not tell which filters were used.
"""

import math
from collections.abc import Callable

from torch import Tensor

from common.program import UserError

FLOOR = math.log(1e-5)
LOWEST = -14.0
"A model's prediction may go below the floor by a little."
LOUDEST = 6.0
"Speech reaches 3; with samples that were not scaled to -1..1 the mel spectrogram reaches 11."
LIVELY = 3.5
"From the lowest to the highest value of any speech in common logarithms; of steady noise it may be less."
LOWEST_DB, REFERENCE_DB = -100.0, 20.0
"Of the stretched decibels: the lowest value stands for LOWEST_DB below the reference."
DB = math.log(10) / 20
"A decibel of amplitude in natural logarithms."
FILTER_SUM = 1024 / 22050
"The sum of each of Slaney's normalized filters: the points of the Fourier transform per hertz."
OF_POWERS = math.log(FILTER_SUM) / 2


def _stretched(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda mel: ((mel - low) / (high - low) * -LOWEST_DB + LOWEST_DB + REFERENCE_DB) * DB


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "ln": lambda mel: mel,
    "log10": lambda mel: mel * math.log(10),
    "db": lambda mel: mel * DB,
    "amplitude": lambda mel: mel.clamp(min=math.exp(FLOOR)).log(),
    "power": lambda mel: mel.clamp(min=1e-30).log() / 2 + OF_POWERS,
    "power_db": lambda mel: mel * DB + OF_POWERS,
    "0..1": _stretched(0, 1),
    "0..4": _stretched(0, 4),
    "-4..4": _stretched(-4, 4),
}
"Their names, and how each becomes natural logarithms of amplitudes."


def to_natural_log(mel: Tensor, form: str = "") -> Tensor:
    """mel of finite numbers [n_mel, T], in a form of FORMS -> natural logarithms, clamped at 1e-5.

    Without a form they must be that already; UserError, with a guess, for values that they cannot have.
    """
    if form:
        return FORMS[form](mel).clamp(min=FLOOR)
    if guess := guess_form(mel):
        what, cure = guess
        values = f"its values, {mel.min().item():.4g} to {mel.max().item():.4g},"
        raise UserError(f"{values} are not those of a natural-log mel spectrogram but look like {what}: {cure}")
    return mel


def guess_form(mel: Tensor) -> tuple[str, str] | None:
    """What values [n_mel, T] look like that no natural-log mel spectrogram of speech has, and what to do; else None."""
    low, median, high = mel.min().item(), mel.median().item(), mel.max().item()
    if 2 * LOWEST < low < LOWEST <= median and high <= LOUDEST:
        return "natural logarithms without a floor", "--mel_form=ln clamps them at 1e-5"
    if low < LOWEST:
        return "decibels", "--mel_form=db or, of powers, --mel_form=power_db converts them"
    if low >= 0 and median <= 0.1 * high:  # speech is mostly pauses and weak bands
        return "amplitudes or powers, no logarithms", "--mel_form=amplitude or --mel_form=power converts them"
    if low >= 0 and high <= 4.05:
        form = "0..1" if high <= 1.05 else "0..4"
        return f"decibels stretched to {form}", f"--mel_form={form} converts them"
    if low >= 0 or high > LOUDEST:
        return "those of samples that are not in -1..1", "divide the samples by 32768 first"
    if low >= -4.05 and 1.5 < high <= 4.05:
        return "decibels stretched to -4..4", "--mel_form=-4..4 converts them"
    if low >= FLOOR / math.log(10) - 0.05 and high - low > LIVELY:
        return "common logarithms", "--mel_form=log10 converts them, --mel_form=ln takes them as they are"
    return None
