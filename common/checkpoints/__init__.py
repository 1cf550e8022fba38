"""Checkpoints: written, found again, and read in every form."""

TITLES = {"waveglow": "WaveGlow", "tacotron2": "Tacotron2"}
"The models that a checkpoint can be of, by the names that they have in files and options."
