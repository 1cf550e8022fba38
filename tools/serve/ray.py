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


class Speech:
    """A replica."""

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """The application, for which Ray waits before it sends requests: the default voice is loaded by then.

        Ray says by OMP_NUM_THREADS how many cores a replica has. UserError as ``find_voices``.
        """
        open_log(None, quiet=False)
        key = read_key(os.environ.get(KEY_FILE))
        voices = voices_on(pick_device(), find_voices(), int(os.environ.get("OMP_NUM_THREADS", 1)))
        await voices.speaker(voices.entry(voices.default))
        return make_application(voices, Limits(), key)


app = serve.deployment()(serve.ingress()(Speech)).bind()
