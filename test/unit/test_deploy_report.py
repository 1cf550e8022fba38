"""The latency report: its fields mean what the README says."""

import pytest
from deploy_toys import FIELDS, WAVEGLOW_FIELDS

from tools.deploy.infer_python import latency
from tools.deploy.infer_python.latency import DeviceResult, Iteration, percentile


def iteration(**changes):
    values = dict.fromkeys(Iteration.__dataclass_fields__, 1.0) | dict(batch=1, mels=100, samples=25600)
    return Iteration(**(values | changes))


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [1, 2, 2, 2, 2]), (7, [4, 7, 7, 7, 7]), (20, [10, 18, 19, 20, 20]),
                        (1000, [500, 900, 950, 990, 1000])]
)  # fmt: skip
def test_percentiles_are_right_for_any_number_of_iterations(n, expected):
    assert [percentile(range(1, n + 1), percent) for percent in (50, 90, 95, 99, 100)] == expected


def test_fields_mean_what_they_say():
    iterations = [
        iteration(encoder=1, latency=4.0, tacotron2=2.0, batch=3, mels=100, samples=300 * 256),
        iteration(encoder=2, latency=2.0, tacotron2=1.0, batch=3, mels=50, samples=150 * 256),
    ]
    report = latency.summarize(iterations)
    assert list(report) == FIELDS[1:] + WAVEGLOW_FIELDS
    assert report["Encoder latency average (seconds)"] == 1.5
    assert report["Number of mels per audio average"] == 75
    assert report["Latency average (seconds)"] == 3
    assert report["Latency std (seconds)"] == 1
    assert report["tacotron2_items_per_sec average"] == 150
    assert report["Throughput average (samples/sec)"] == 75 * 256


def test_devices_add_up():
    results = {0: DeviceResult("a", [iteration()] * 2), 3: DeviceResult("b", [iteration(tacotron2=0.5, latency=0.25)])}
    report = latency.report(results)
    assert [device["device"] for device in report["devices"]] == [0, 3]
    assert report["sum"] == {
        "tacotron2_items_per_sec average": 100 + 200,
        "Throughput average (samples/sec)": 25600 + 4 * 25600,
    }
