"""What programs take from their command lines."""

import sys


def read(monkeypatch, program, *options):
    """By a program, which is its module, in the test's process."""
    monkeypatch.setattr(sys, "argv", ["program", *options])
    return program.read_arguments()
