"""A clip's figures of Tacotron2's evaluation."""

from tacotron2.evaluation import ClipFigures


def measured(**changes):
    figures = dict(
        name="a", seconds=1.0, loss=1.0, mel_l1=0.5, mel_cepstral_distortion=4.0, frames=100, spoken_seconds=1.0,
        stopped=1.0, diagonality=0.8, coverage=0.9, real_time_factor=2.0,
    )  # fmt: skip
    return ClipFigures(**figures | changes)
