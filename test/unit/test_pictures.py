"""Pictures of a training and of speech: what is drawn is the numbers, on axes that show all of them."""

import math

import numpy as np
import pytest
import torch

from common.evaluation import runner
from common.evaluation.page import as_png
from common.evaluation.pictures import plot_alignment, plot_gate, plot_losses, plot_spectrograms
from common.training.run import Progress


def test_spectrograms_have_one_scale_and_stand_in_their_order():
    """From the lowest to the highest value of all, wherever they are; low bands below."""
    first, second, third = torch.randn(6, 5), torch.randn(6, 9), torch.randn(6, 7)
    first[0, 0], third[5, 6] = 12.0, -11.0
    figure = plot_spectrograms({"recorded": first, "predicted": second, "spoken": third})
    axes = figure.axes[:3]
    assert [axis.get_title(loc="left") for axis in axes] == ["recorded", "predicted", "spoken"]
    for axis, mel in zip(axes, (first, second, third), strict=True):
        (image,) = axis.images
        assert image.get_clim() == (-11.0, 12.0)
        assert np.array_equal(image.get_array(), mel) and image.origin == "lower"
        assert axis.get_xlim() == (-0.5, 8.5)
    reverse = plot_spectrograms({"a": third, "b": first})
    assert [axis.images[0].get_clim() for axis in reverse.axes[:2]] == [(-11.0, 12.0)] * 2


def test_an_alignment_is_dark_where_nothing_is_attended_to():
    (image,) = plot_alignment(torch.rand(7, 3) + 0.5).axes[0].images
    assert image.get_clim()[0] == 0 and image.get_clim()[1] > 0.5


def test_the_gate_has_room_from_0_to_1():
    low, high = plot_gate(torch.zeros(4)).axes[0].get_ylim()
    assert -0.2 < low < 0 and 1 < high < 1.2


@pytest.mark.parametrize(("steps", "is_scaled"), [(50, False), (51, True)])
def test_only_a_long_curve_is_scaled_to_what_follows_its_beginning(steps, is_scaled):
    """Behind a twentieth of its steps, and behind the first validation."""
    losses = [100.0] * (steps // 20) + [4.0] + [2.0] * (steps - steps // 20 - 1)
    low, high = plot_losses(losses, [(0, 90.0), (steps, 1.0)], iteration=steps).axes[0].get_ylim()
    assert low < 1 and (high == pytest.approx(4.3) if is_scaled else high > 90)


def test_a_curve_shows_each_validation_at_its_iteration_and_where_finetuning_began():
    """Also of a checkpoint that has not kept the first of its losses."""
    progress = Progress(iteration=70, first_iteration=60, losses=[3.0, 2.0], validation_losses=[(60, 5.0), (70, 4.0)])
    (axis,) = plot_losses(progress.losses, progress.validation_losses, 70, 60).axes
    training, validation, began = axis.lines
    assert (training.get_xdata().tolist(), training.get_ydata().tolist()) == ([69, 70], [3.0, 2.0])
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([60, 70], [5.0, 4.0])
    assert list(began.get_xdata()) == [60, 60]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "training",
        "validation",
        "finetuning begins",
    ]
    assert validation.get_marker() == "o"  # so that a single one is seen
    assert len(plot_losses([1.0], [], 1).axes[0].lines) == 1


def test_the_curve_of_a_checkpoint_is_drawn_from_its_progress(monkeypatch):
    drawn = []
    monkeypatch.setattr(runner.pictures, "plot_losses", lambda *given: drawn.append(given) or plot_losses(*given))
    progress = Progress(iteration=7, first_iteration=5, losses=[3.0, 2.0], validation_losses=[(7, 4.0)])
    assert runner.plot_training(progress).startswith("data:image/png;base64,")
    assert drawn == [([3.0, 2.0], [(7, 4.0)], 7, 5)]
    assert runner.describe_training(progress) == "7 iterations"
    assert runner.describe_training(Progress(iteration=7, finetuned_from="a/b")) == "7 iterations, finetuned from a/b"


def test_the_curve_is_scaled_to_what_comes_behind_the_first_steps():
    """They fall steeply; skipped steps are nan, and a validation may be."""
    losses = [1000.0] * 5 + [math.nan, 3.0, math.inf] + [2.0] * 90 + [math.nan, 1.0]
    validation = [(0, 900.0), (50, math.nan), (100, 0.5)]
    figure = plot_losses(losses, validation, iteration=100, began=40)
    (axis,) = figure.axes
    assert axis.get_ylim() == pytest.approx((0.5 - 0.25, 3.0 + 0.25))
    assert np.array_equal(axis.lines[0].get_ydata(), losses, equal_nan=True)
    assert axis.lines[0].get_xdata().tolist() == list(range(1, 101))
    assert list(axis.lines[2].get_xdata()) == [40, 40]
    assert as_png(figure).startswith("data:image/png;base64,")


@pytest.mark.parametrize("steps", [0, 3, 100])
@pytest.mark.parametrize("validation", [[], [(0, math.nan), (3, math.nan)]])
def test_a_curve_without_a_number_can_be_drawn(steps, validation):
    assert as_png(plot_losses([math.nan] * steps, validation, iteration=steps)).startswith("data:image/png;base64,")


def test_an_alignment_and_its_gate_go_from_left_to_right():
    """A symbol for each row, the first below."""
    alignment = torch.rand(7, 3)
    (image,) = plot_alignment(alignment).axes[0].images
    assert np.array_equal(image.get_array(), alignment.t()) and image.origin == "lower"
    (line,) = plot_gate(alignment[:, 0]).axes[0].lines
    assert np.array_equal(line.get_ydata(), alignment[:, 0])


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
