"""The page of an evaluation: it shows all that it is given, and holds its sounds and pictures itself."""

import base64
import io
import re

import jinja2
import matplotlib.image
import pytest
import soundfile
import torch

from common.evaluation.page import as_png, as_wav, write_page
from common.evaluation.pictures import plot_gate
from conftest import RATE


def test_the_page_s_sound_is_the_audio():
    audio = torch.tensor([-1.0, -0.25, 0.0, 0.5, 2.0])
    wav = as_wav(audio, RATE)
    head, _, data = wav.partition(",")
    assert head == "data:audio/wav;base64"
    read, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="int16")
    assert rate == RATE and read.tolist() == [-32768, -8192, 0, 16384, 32767]


def test_the_page_s_picture_is_the_figure():
    """Whole, in its proportions."""
    head, _, data = as_png(plot_gate(torch.rand(7))).partition(",")
    assert head == "data:image/png;base64"
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(data, validate=True)), format="png")
    height, width, _ = picture.shape
    assert width >= 800 and width / height == pytest.approx(8 / 1.8, rel=0.01)
    assert picture[..., :3].min() < 0.1 and picture[..., :3].max() == 1  # black on white


def test_a_name_cannot_become_part_of_the_page(tmp_path):
    """And what the template asks for must be given."""
    template = tmp_path / "page.jinja"
    template.write_text("<p>{{ name }}</p>")
    write_page(tmp_path / "a.html", template, name="<script>")
    assert (tmp_path / "a.html").read_text() == "<p>&lt;script&gt;</p>"
    with pytest.raises(jinja2.UndefinedError, match="name"):
        write_page(tmp_path / "b.html", template, nam="a")
    assert not (tmp_path / "b.html").exists()


CONTENT = {
    "title": "An evaluation",
    "facts": {"checkpoint": "a/b <c>", "sigma": 0.6},
    "curve": "data:image/png;base64,curve",
    "columns": ["seconds", "loss"],
    "clips": [
        {
            "name": "ä",
            "figures": ["1.000", "-"],
            "sounds": {"original": "data:audio/wav;base64,one", "synthesized": "data:audio/wav;base64,two"},
            "images": {"mel spectrograms": "data:image/png;base64,mels"},
            "text": "What is said.",
            "words": {"heard": [("what", False), ("was", True), ("said", False)]},
        },
        {"name": "b", "figures": ["2.000", "3.000"], "sounds": {}},
    ],
    "overall": ["3.000", "4.000"],
    "note": "A note.",
}


def lines_of(path):
    """What a browser shows of a page, a line for each element: without the head, tags but for those that matter."""
    body = path.read_text(encoding="utf-8").partition("<body>")[2]
    body = re.sub(r"<(?!/?mark|img|audio)[^>]*>", "\n", body)
    return [line.strip() for line in body.splitlines() if line.strip()]


def test_a_page_shows_all_that_it_is_given(tmp_path):
    """The figures of all clips, in their columns; sounds, pictures and words of those that have them."""
    write_page(tmp_path / "a.html", **CONTENT)
    sound = '<audio controls preload="metadata" src="data:audio/wav;base64,{}">'
    assert lines_of(tmp_path / "a.html") == [
        "An evaluation", "checkpoint", "a/b &lt;c&gt;", "sigma", "0.6",
        "Training", '<img src="data:image/png;base64,curve" alt="Training and validation loss by iteration">',
        "Clips", "clip", "seconds", "loss", "ä", "1.000", "-", "b", "2.000", "3.000", "overall", "3.000", "4.000",
        "A note.", "ä", "What is said.", "heard:", "what <mark>was</mark> said",
        "original", sound.format("one"), "synthesized", sound.format("two"),
        "mel spectrograms", '<img src="data:image/png;base64,mels" alt="ä: mel spectrograms">',
    ]  # fmt: skip
    assert '<meta charset="utf-8">' in (tmp_path / "a.html").read_text(encoding="utf-8").partition("</head>")[0]


def test_a_page_shows_no_heading_over_nothing(tmp_path):
    """Without a curve, a note, texts."""
    clip = {"name": "a", "figures": ["1"], "sounds": {"made": "data:,"}, "images": {}}
    write_page(tmp_path / "a.html", **CONTENT | {"facts": {}, "curve": "", "note": "", "clips": [clip]})
    shown = ["An evaluation", "Clips", "clip", "seconds", "loss", "a", "1", "overall", "3.000", "4.000", "a", "made"]
    assert lines_of(tmp_path / "a.html") == [*shown, '<audio controls preload="metadata" src="data:,">']
    assert 'class="note"' not in (tmp_path / "a.html").read_text(encoding="utf-8")
