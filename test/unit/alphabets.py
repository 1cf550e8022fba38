"""Alphabets of other languages than English, and what speaks them."""

import sys

from conftest import toy_tacotron2_config
from tools import synthesize

MARKS = list("_-!'(),.:;? ")
GERMAN = MARKS + list("abcdefghijklmnopqrstuvwxyzäöüß")
RUSSIAN = MARKS + list("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")


def speaking(symbols):
    """The configuration of a toy model of these symbols."""
    values = toy_tacotron2_config()
    values["data_config"] = {"symbols": symbols}
    return values


def speak(monkeypatch, caplog, checkpoint, output, *arguments):
    """What tools/synthesize.py says."""
    command = ["synthesize.py", *arguments, f"--tacotron2={checkpoint}", f"--output={output}", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", command)
    caplog.clear()
    with caplog.at_level("INFO"):
        synthesize.main()
    return caplog.text
