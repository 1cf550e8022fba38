"""Means and pictures of figures, some of which are no numbers."""

import base64
import io
import json
import math
import re
from dataclasses import dataclass

import jinja2
import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch

from common.evaluation import runner
from common.evaluation.page import as_png, as_wav, write_page
from common.evaluation.pictures import plot_alignment, plot_gate, plot_losses, plot_spectrograms
from conftest import RATE

NAN = math.nan


@dataclass
class Figures:
    name: str
    loss: float
    count: int = 3


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1.0, 2.0, 6.0], 3), ([NAN, 1.0, NAN, 4.0], 2.5), ([0.0, 0.0], 0), ([NAN, NAN], NAN), ([], NAN)],
)
def test_a_mean_is_of_those_that_are_numbers(values, mean):
    assert runner.mean(iter(values)) == pytest.approx(mean, nan_ok=True)


def test_json_has_null_where_there_is_no_number(tmp_path):
    runner.write_json(tmp_path / "a.json", {"seed": 1}, Figures("overall", 2.5), [Figures("ä", NAN)])
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert '"ä"' in text and '\n  "seed": 1,\n' in text and text.endswith("}\n")  # for people to read
    assert json.loads(text, parse_constant=pytest.fail) == {
        "seed": 1,
        "overall": {"name": "overall", "loss": 2.5, "count": 3},
        "clips": [{"name": "ä", "loss": None, "count": 3}],
    }


def test_results_are_in_the_order_of_the_inputs(monkeypatch):
    """Whichever process they come from."""
    monkeypatch.setattr(runner.distributed, "gather_objects", lambda own: [{1: "b", 3: "d"}, {2: "c", 0: "a"}])
    assert runner.shared_out("abcd", str) == list("abcd")


def test_the_curve_is_scaled_to_what_comes_behind_the_first_steps():
    """They fall steeply; skipped steps are nan, and a validation may be."""
    losses = [1000.0] * 5 + [NAN, 3.0, math.inf] + [2.0] * 90 + [NAN, 1.0]
    validation = [(0, 900.0), (50, NAN), (100, 0.5)]
    figure = plot_losses(losses, validation, iteration=100, began=40)
    (axis,) = figure.axes
    assert axis.get_ylim() == pytest.approx((0.5 - 0.25, 3.0 + 0.25))
    assert np.array_equal(axis.lines[0].get_ydata(), losses, equal_nan=True)
    assert axis.lines[0].get_xdata().tolist() == list(range(1, 101))
    assert list(axis.lines[2].get_xdata()) == [40, 40]
    assert as_png(figure).startswith("data:image/png;base64,")


@pytest.mark.parametrize("steps", [0, 3, 100])
@pytest.mark.parametrize("validation", [[], [(0, NAN), (3, NAN)]])
def test_a_curve_without_a_number_can_be_drawn(steps, validation):
    assert as_png(plot_losses([NAN] * steps, validation, iteration=steps)).startswith("data:image/png;base64,")


def test_an_alignment_and_its_gate_go_from_left_to_right():
    """A symbol for each row, the first below."""
    alignment = torch.rand(7, 3)
    (image,) = plot_alignment(alignment).axes[0].images
    assert np.array_equal(image.get_array(), alignment.t()) and image.origin == "lower"
    (line,) = plot_gate(alignment[:, 0]).axes[0].lines
    assert np.array_equal(line.get_ydata(), alignment[:, 0])


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


@pytest.mark.parametrize(("clips", "said"), [(0, ""), (20, ""), (21, " The first 20 clips are below.")])
def test_clips_that_are_not_on_the_page_are_said(clips, said):
    assert runner.clips_below(clips) == said


@pytest.mark.parametrize("count", [1, 3])
def test_spectrograms_have_room_one_below_the_other(count):
    figure = plot_spectrograms({str(i): torch.randn(6, 5) for i in range(count)})
    width, height = figure.get_size_inches()
    assert width == 8 and 1.5 * count < height < 2.5 * count
    assert [axis.get_ylabel() for axis in figure.axes[:count]] == ["mel band"] * count
    assert figure.axes[count - 1].get_xlabel() == "frame" and figure.axes[count].get_ylabel() == "log magnitude"


def test_axes_say_what_they_show():
    for figure, names in (
        (plot_losses([1.0], [(0, 1.0)], 1), ("iteration", "loss")),
        (plot_alignment(torch.rand(7, 3)), ("decoder step", "symbol")),
        (plot_gate(torch.rand(7)), ("decoder step", "is the end")),
    ):
        assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == names
