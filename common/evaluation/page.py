"""An HTML page that holds pictures and sound in one file."""

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
import soundfile
from matplotlib.figure import Figure
from torch import Tensor

from common.audio import to_16_bit
from common.files import written_whole

TEMPLATE = Path(__file__).with_name("page.html.jinja")
"Others may extend it."


def as_png(figure: Figure) -> str:
    """The figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_wav(audio: np.ndarray | Tensor, sampling_rate: int) -> str:
    """Samples [N] in -1..1 as a data URI."""
    buffer = io.BytesIO()
    soundfile.write(buffer, to_16_bit(audio), sampling_rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_page(path: Path, template: Path = TEMPLATE, **content: object) -> None:
    """Fill the template (its head says with what); the page needs no other file and no network."""
    loader = jinja2.FileSystemLoader([template.parent, TEMPLATE.parent])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, loader=loader)
    page = environment.get_template(template.name).render(**content)
    with written_whole(path) as file:
        file.write(page.encode())
