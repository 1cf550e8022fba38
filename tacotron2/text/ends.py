"""The mark at the end of what is spoken."""

import re

ENDED = re.compile(r"[.!?…。！？؟۔।][\"'”’»)\]」』]*$")
OPEN = re.compile(r"[\s,;:、，；：،؛–—-]*$")
"What stands behind a part of a sentence."


def with_end(text: str) -> str:
    """The text as a sentence: with a full stop, in place of a comma or the like, where it has no end.

    A model that has mostly heard whole sentences may find no end without one.
    """
    bare = OPEN.sub("", text)
    if not bare:
        return text
    return bare if ENDED.search(bare) else bare + "."
