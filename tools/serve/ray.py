"""The service on several machines, under Ray Serve: serve run tools/serve/ray.yaml

Ray decides how many replicas there are and who gets which request; each replica has its own models.
"""

import os

from fastapi import FastAPI
from ray import serve

from common.device import pick_device
from common.log import open_log
from tools.serve.application import make_application
from tools.serve.limits import Limits, read_key
from tools.serve.loading import find_voices, voices_on

KEY_FILE = "SPEECH_API_KEY_FILE"
"Environment variable: a file that holds the key that clients must send."


def build() -> FastAPI:
    """The application of a replica; Ray says by OMP_NUM_THREADS how many cores it has."""
    open_log(None, quiet=False)
    voices = voices_on(pick_device(), find_voices(), int(os.environ.get("OMP_NUM_THREADS", 1)))
    return make_application(voices, Limits(), read_key(os.environ.get(KEY_FILE)))


class Speech:
    """A replica."""


app = serve.deployment(serve.ingress(build)(Speech)).bind()
