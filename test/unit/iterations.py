"""What an iteration of the deployment's measurement gave."""

from tools.deploy.infer_python.latency import Iteration


def iteration(**changes) -> Iteration:
    """Of one text, whose every time and rate is 1.0 but for the changes."""
    values = dict.fromkeys(Iteration.__dataclass_fields__, 1.0) | dict(batch=1, mels=100, samples=25600)
    return Iteration(**(values | changes))
