"""What a speech delivers to the service, as the tests of its answers hand it on."""

import asyncio

import numpy as np
import torch

from tacotron2.model import Utterance
from tacotron2.synthesizer import Spoken

SPOKEN = Spoken("Hi.", Utterance(torch.zeros(2, 3), 3, True, torch.zeros(3, 2), torch.zeros(3), 1.0, 1.0), "")
A, B = np.array([1, 2, 3], np.int16), np.array([4, 5], np.int16)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def listed(items):
    return [item async for item in items]


async def sound_of(*items):
    """As a speech delivers it; an exception is raised in its place."""
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item
