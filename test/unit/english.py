"""English text as it is read."""

from tacotron2.text.cleaners import clean


def read(text):
    """What the cleaners make of it."""
    return clean(text, "english_cleaners_v2")
