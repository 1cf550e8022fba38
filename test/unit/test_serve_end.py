"""SIGTERM to the service as a user starts it: what was begun is finished, and nothing new is taken."""

import json
import os
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest
from running_programs import wait_for
from toy_speech import make_models

from conftest import ROOT
from serving import TEXT, is_refused

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")

SERVICE = """
import sys, time
from pathlib import Path
from common import program
from tacotron2.synthesizer import BaseSynthesizer
from tools.serve import main

hold, together = Path(sys.argv.pop(1)), BaseSynthesizer.speak_together

def in_time(self, pieces, *args):
    while pieces[0][2] and hold.exists():  # all but a text's first sentence
        time.sleep(0.01)
    return together(self, pieces, *args)

BaseSynthesizer.speak_together = in_time
program.run(main.main)
"""


@pytest.fixture
def hold(tmp_path):
    """A file: while it is there, only first sentences are decoded."""
    return tmp_path / "hold"


@pytest.fixture
def service(tmp_path, hold):
    """The process, and its port, at which it listens."""
    (tmp_path / "service.py").write_text(SERVICE)
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "service.py", hold, *make_models(tmp_path), "--device=cpu", f"--port={port}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = []
    while not said or "listening" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], "".join(said)
    yield process, port
    process.kill()
    process.communicate(timeout=60)


def ask(port):
    """The answer to a request for speech, whose first audio is there."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"input": TEXT, "response_format": "pcm"})
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    return answer


def test_a_stream_in_flight_is_finished(service, hold):
    process, port = service
    whole = ask(port).read()
    hold.touch()
    answer = ask(port)
    first = answer.read(1000)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: is_refused(port))
    assert process.poll() is None
    hold.unlink()
    assert first + answer.read() == whole  # read() fails for an answer without its end
    assert process.wait(60) == 0
