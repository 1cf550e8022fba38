"""The latency report: its fields mean what the README says."""

from dataclasses import replace

import pytest
from deploy_toys import FIELDS, WAVEGLOW_FIELDS, report_of
from iterations import iteration

from tools.deploy.benchmark.table import COLUMNS, plot, table
from tools.deploy.checkpoints import RANDOM
from tools.deploy.infer_python import latency
from tools.deploy.infer_python.latency import DeviceResult, Run, percentile


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


def test_each_title_has_the_mean_of_its_own_field():
    """No two of these are alike."""
    names = ["preprocessing", "mels", "encoder", "decoder", "postnet", "latency", "postprocessing", "waveglow"]
    own = {name: float(i) for i, name in enumerate(names, start=2)}
    report = latency.summarize([iteration(**own), iteration(**{name: 3 * value for name, value in own.items()})])
    titles = ["Preprocessing", "Number of mels per audio", "Encoder latency", "Decoder latency", "Postnet latency"]
    titles += ["Latency", "Postprocessing", "Waveglow latency"]
    titled = {title.partition(" average")[0]: value for title, value in report.titled().items()}
    assert {name: titled[title] for name, title in zip(names, titles, strict=True)} == {
        name: 2 * value for name, value in own.items()
    }
    assert report.iterations == 2


def test_a_report_is_a_part_for_each_device_and_their_sum():
    """The sum of their iterations, and of what they do in a second; one device is its own sum."""
    one = measured(devices={0: DeviceResult("a", [iteration(tacotron2=2.0, latency=4.0)] * 2)})
    two = measured(devices=one.devices | {3: DeviceResult("b", [iteration()])})
    assert list(report_of(one.as_text())) == ["dev[0]"]
    assert two.as_text().count("\nb\n") == 1
    report = report_of(two.as_text())
    assert list(report) == ["dev[0]", "dev[3]", "sum"]
    assert [fields["Iterations"] for fields in report.values()] == [2, 1, 3]
    assert report["sum"] == {"Iterations": 3, FIELDS[-1]: 50 + 100, WAVEGLOW_FIELDS[0]: 6400 + 25600}
    assert two.as_text().endswith("\n")


def test_without_waveglow_nothing_is_said_of_audio():
    silent = without_waveglow()
    assert silent.rates() == {FIELDS[-1]: 100}
    assert silent.as_json()["sum"] == {FIELDS[-1]: 100}
    assert list(silent.as_json()["devices"][0]["report"]) == FIELDS[1:]


def test_the_json_has_every_iteration_and_what_was_measured():
    run = measured(devices={2: DeviceResult("a card", [iteration(mels=70), iteration(endless=1)])})
    saved = run.as_json()
    assert {name: saved[name] for name in ("engine", "quant_mode", "batch", "input_length", "weights", "cost")} == {
        "engine": "torch", "quant_mode": "int8", "batch": 2, "input_length": 128,
        "weights": {"tacotron2": "a", "waveglow": "b"}, "cost": {"tacotron2": 0.125, "waveglow": 0.25},
    }  # fmt: skip
    (device,) = saved["devices"]
    assert (device["device"], device["name"]) == (2, "a card")
    assert device["report"] == run.summaries[2].titled()
    assert [(each["mels"], each["endless"]) for each in device["iterations"]] == [(70, 1.0), (100, 1)]


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


def test_the_table_s_latencies_are_the_slowest_devices_and_the_last_cell_names_them():
    """A device may be the slower one on average and the faster one at its worst."""
    even = [iteration(latency=2.0)] * 20
    uneven = [iteration(latency=1.0)] * 18 + [iteration(latency=3.0)] * 2
    run = measured(devices={i: DeviceResult("a card", each) for i, each in enumerate((even, uneven, even))})
    cells = dict(zip(COLUMNS, table([run], {}).splitlines()[2][2:-2].split(" | ")))
    assert (cells["latency (s)"], cells["cl 95 (s)"], cells["device"]) == ("2.000", "3.000", "3 times a card")


@pytest.mark.parametrize("kind", ["tacotron2", "waveglow"])
def test_random_weights_of_either_model_are_said(kind):
    rows = table([measured(weights={"tacotron2": "a", "waveglow": "b"} | {kind: RANDOM})], {}).splitlines()
    assert rows[2].startswith("| Tacotron2 + WaveGlow (random weights) |")


def test_the_plot_has_a_line_for_each_mode_and_audio_where_all_have_it():
    runs = [measured(), measured(batch=8), measured(quant_mode="force_float16")]
    frames, samples = plot(runs).axes
    for axis, rate in ((frames, 200), (samples, runs[0].sample_rate)):
        lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
        assert lines == {"int8": [[2, rate], [8, rate]], "force_float16": [[2, rate]]}
        assert axis.get_ylim()[0] == 0  # twice as high is twice as fast
        assert axis.get_xticks().tolist() == [2, 8]
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
