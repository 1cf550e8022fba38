"""Where in a text the ARPAbet stands."""

from collections.abc import Iterator


def split_braces(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a text in their order, and of each whether it stood in braces.

    An opening brace reaches to the first closing one that leaves something between them. As in the
    reference, braces count in the first line only, and if there are any, the text ends with that line.
    """
    line = text.partition("\n")[0]
    end = 0
    # No regular expression: on many braces that are never closed it would take quadratic time.
    while (opening := line.find("{", end)) >= 0 and (closing := line.find("}", opening + 2)) >= 0:
        yield line[end:opening], False
        yield line[opening + 1 : closing], True
        end = closing + 1
    yield line[end:] if end else text, False
