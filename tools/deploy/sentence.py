"""The text that speed is measured with."""

SENTENCE = (
    "The forms of printed letters should be beautiful, and that their arrangement on the page should be"
    " reasonable and a help to the shapeliness of the letters themselves. "
)
"As in NVIDIA's and Cambricon's measurements, said again and again."


def sentence(length: int) -> str:
    """So many characters of it."""
    return (SENTENCE * (length // len(SENTENCE) + 1))[:length]
