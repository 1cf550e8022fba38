"""Pictures of a training and of what a model speaks."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def plot_spectrograms(spectrograms: Mapping[str, Tensor]) -> Figure:
    """Log-mel spectrograms [n_mel, T] one above the other, in one colour scale."""
    figure = Figure(figsize=(8, 1.9 * len(spectrograms)), layout="constrained")
    low = min(mel.min().item() for mel in spectrograms.values())
    high = max(mel.max().item() for mel in spectrograms.values())
    axes = figure.subplots(len(spectrograms), sharex=True, squeeze=False)[:, 0]
    for axis, (name, mel) in zip(axes, spectrograms.items()):
        image = axis.imshow(mel.numpy(), origin="lower", aspect="auto", interpolation="none", vmin=low, vmax=high)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_ylabel("mel band")
    axes[-1].set_xlim(-0.5, max(mel.shape[1] for mel in spectrograms.values()) - 0.5)
    axes[-1].set_xlabel("frame")
    figure.colorbar(image, ax=axes, label="log magnitude")
    return figure


def plot_losses(
    losses: Sequence[float], validation: Sequence[tuple[int, float]], iteration: int, began: int = 0
) -> Figure:
    """The training loss of the steps up to ``iteration``, and (iteration, validation loss).

    ``began``: the iteration at which finetuning began, marked by a line.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    steps = np.arange(iteration - len(losses), iteration) + 1
    axis.plot(steps, losses, linewidth=0.8, alpha=0.6, label="training")
    if validation:
        axis.plot(*zip(*validation), "o-", markersize=4, label="validation")
    if began:
        axis.axvline(began, color="grey", linestyle="--", linewidth=1, label="finetuning begins")
    # The first steps of a fresh model fall so steeply that the rest would look flat.
    shown = [*losses[len(losses) // 20 :], *(x for _, x in validation[1:])]
    shown = [x for x in shown if np.isfinite(x)]
    if len(losses) > 50 and shown:
        margin = 0.1 * (max(shown) - min(shown))
        axis.set_ylim(min(shown) - margin, max(shown) + margin)
    axis.set_xlabel("iteration")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def plot_alignment(alignment: Tensor) -> Figure:
    """Attention [S, N] of the decoder's steps to symbols; a diagonal where text and speech advance together."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(alignment.t().numpy(), origin="lower", aspect="auto", interpolation="none", vmin=0)
    axis.set_xlabel("decoder step")
    axis.set_ylabel("symbol")
    figure.colorbar(image, ax=axis, label="attention")
    return figure


def plot_gate(gate: Tensor) -> Figure:
    """The probability [S] that a step of the decoder is the last."""
    figure = Figure(figsize=(8, 1.8), layout="constrained")
    axis = figure.subplots()
    axis.plot(gate.numpy(), linewidth=1)
    axis.set_ylim(-0.05, 1.05)
    axis.set_xlabel("decoder step")
    axis.set_ylabel("is the end")
    axis.grid(alpha=0.3)
    return figure
