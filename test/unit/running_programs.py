"""Programs that run beside a test: the signals that they hear, and what the test waits for."""

import signal
import time

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def listen_to_signals():
    """A shell in the background, or nohup, has its programs ignore these, and bash cannot trap what is ignored."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def wait_for(condition, seconds=120, process=None):
    """Until it holds; it never does once the process that should see to it has ended."""
    until = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
