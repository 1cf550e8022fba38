"""The latency report: its fields mean what the README says."""

from dataclasses import replace

import pytest
from deploy_toys import FIELDS, WAVEGLOW_FIELDS

from tools.deploy.benchmark.table import COLUMNS, plot, table
from tools.deploy.checkpoints import RANDOM
from tools.deploy.infer_python import latency
from tools.deploy.infer_python.latency import DeviceResult, Iteration, Run, percentile


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
    assert list(report.titled()) == FIELDS[1:] + WAVEGLOW_FIELDS
    assert report.titled()["Encoder latency average (seconds)"] == report.encoder == 1.5
    assert report.titled()["Number of mels per audio average"] == report.mels == 75
    assert report.titled()["Latency average (seconds)"] == report.latency == 3
    assert report.titled()["Latency std (seconds)"] == report.std == 1
    assert report.titled()["tacotron2_items_per_sec average"] == report.frame_rate == 150
    assert report.titled()["Throughput average (samples/sec)"] == report.sample_rate == 75 * 256


def test_the_table_has_the_slowest_device_and_one_cell_for_each_column():
    """What failed may quote a sign that separates columns."""
    results = {0: DeviceResult("a", [iteration(latency=0.25)]), 1: DeviceResult("a", [iteration(latency=0.5)])}
    run = Run("torch", "int8", 1, 128, {"tacotron2": "a", "waveglow": "b"}, {}, results)
    rows = [line.split(" | ") for line in table([run], {"force_float16": "a|b | c"}).splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[2][6:8] == ["0.500", "0.500"]
    assert rows[3][-1] == "a/b / c |"


def measured(**changes):
    """Of a mode whose latencies are 1 to 20 s, of clips with 100 frames and 25600 samples."""
    slow = [iteration(latency=float(seconds), tacotron2=0.5) for seconds in range(1, 21)]
    weights, cost = {"tacotron2": "a", "waveglow": "b"}, {"tacotron2": 0.125, "waveglow": 0.25}
    run = Run("torch", "int8", 2, 128, weights, cost, {0: DeviceResult("a card", slow)})
    return replace(run, **changes)


def without_waveglow(**changes):
    return measured(devices={0: DeviceResult("a card", [iteration(samples=0)])}, **changes)


def test_each_cell_of_the_table_is_what_its_column_says():
    run = measured()
    (cells,) = [dict(zip(COLUMNS, line[2:-2].split(" | "))) for line in table([run], {}).splitlines()[2:3]]
    assert cells == {
        "model": "Tacotron2 + WaveGlow", "input length": "128", "quant mode": "int8", "batch": "2",
        "mel frames/s": "200", "samples/s": f"{run.sample_rate:,.0f}", "latency (s)": "10.500", "cl 95 (s)": "19.000",
        "Tacotron2's mel L1": "0.12", "WaveGlow's mel L1": "0.25", "device": "a card",
    }  # fmt: skip
    random = table([without_waveglow(weights={"tacotron2": RANDOM}, cost={})], {}).splitlines()[2]
    assert random.startswith("| Tacotron2 (random weights) |")
    assert random.split(" | ")[5] == random.split(" | ")[8] == random.split(" | ")[9] == "-"


def test_the_plot_has_a_line_for_each_mode_and_audio_where_all_have_it():
    runs = [measured(), measured(batch=8), measured(quant_mode="force_float16")]
    frames, samples = plot(runs).axes
    for axis, rate in ((frames, 200), (samples, runs[0].sample_rate)):
        lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
        assert lines == {"int8": [[2, rate], [8, rate]], "force_float16": [[2, rate]]}
    assert [axis.get_title(loc="left").split()[0] for axis in (frames, samples)] == ["Tacotron2:", "Tacotron2"]
    assert len(plot([measured(), without_waveglow()]).axes) == 1


def test_the_head_of_a_report_says_what_was_spoken_by_which_weights():
    head = "torch, int8, batch 2, {}\ntacotron2: a\nwaveglow: b\n====="
    assert measured().as_text().startswith(head.format("128 characters"))
    assert measured(input_length=None).as_text().startswith(head.format("a text"))


def test_devices_add_up():
    results = {0: DeviceResult("a", [iteration()] * 2), 3: DeviceResult("b", [iteration(tacotron2=0.5, latency=0.25)])}
    run = Run("torch", "int8", 1, 128, {"tacotron2": "a", "waveglow": "b"}, {}, results)
    assert [device["device"] for device in run.as_json()["devices"]] == [0, 3]
    assert run.as_json()["sum"] == {
        "tacotron2_items_per_sec average": 100 + 200,
        "Throughput average (samples/sec)": 25600 + 4 * 25600,
    }
