"""The latency report, in the words of Cambricon's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTS = (50, 90, 95, 99, 100)
RATES = ("tacotron2_items_per_sec average", "Throughput average (samples/sec)")
"Fields that add up over several devices."


@dataclass
class Iteration:
    """Measurements of one batch, in seconds unless said otherwise."""

    preprocessing: float
    "From texts to ids."
    encoder: float
    decoder: float
    postnet: float
    waveglow: float
    "0, if it was left out."
    tacotron2: float
    "From ids to spectrograms."
    latency: float
    "From ids to audio, or to spectrograms without WaveGlow."
    postprocessing: float
    "From audio to wavs on the disk."
    batch: int
    "Clips."
    mels: int
    "Frames of the longest clip."
    samples: int
    "Audio samples of all clips, each counted as long as the longest; 0 without WaveGlow."
    endless: int
    "Clips that did not end by themselves, but at the limit of frames."


@dataclass
class DeviceResult:
    """The iterations of one device."""

    device_name: str
    iterations: list[Iteration]


def summarize(iterations: Sequence[Iteration]) -> dict[str, float]:
    """The fields of a report."""
    mean = lambda name: float(np.mean([getattr(each, name) for each in iterations]))  # noqa: E731
    latencies = sorted(each.latency for each in iterations)
    report = {
        "Preprocessing average (seconds)": mean("preprocessing"),
        "Number of mels per audio average": mean("mels"),
        "Encoder latency average (seconds)": mean("encoder"),
        "Decoder latency average (seconds)": mean("decoder"),
        "Postnet latency average (seconds)": mean("postnet"),
        "Latency average (seconds)": mean("latency"),
        "Latency std (seconds)": float(np.std(latencies)),
        **{f"Latency cl {percent} (seconds)": percentile(latencies, percent) for percent in PERCENTS},
        "tacotron2_items_per_sec average": float(np.mean([i.batch * i.mels / i.tacotron2 for i in iterations])),
    }
    if any(each.samples for each in iterations):
        report |= {
            "Throughput average (samples/sec)": float(np.mean([i.samples / i.latency for i in iterations])),
            "Postprocessing average (seconds)": mean("postprocessing"),
            "Waveglow latency average (seconds)": mean("waveglow"),
        }
    return report


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed."""
    return ascending[max(0, -(-percent * len(ascending) // 100) - 1)]


def report(results: dict[int, DeviceResult]) -> dict[str, Any]:
    """The report as JSON: for each device the fields and every iteration, and the sum of all devices."""
    devices: list[dict[str, Any]] = [
        {
            "device": number,
            "name": measured.device_name,
            "report": summarize(measured.iterations),
            "iterations": [asdict(each) for each in measured.iterations],
        }
        for number, measured in results.items()
    ]
    rates = [name for name in RATES if name in devices[0]["report"]]
    return {"devices": devices, "sum": {name: sum(each["report"][name] for each in devices) for name in rates}}


def as_text(run: dict[str, Any]) -> str:
    """A run's report, as Cambricon's looks."""
    length = f"{run['input_length']} characters" if run["input_length"] else "a text"
    lines = [f"{run['engine']}, {run['quant_mode']}, batch {run['batch']}, {length}"]
    lines += [f"{model}: {source}" for model, source in run["weights"].items()]
    for device in run["devices"]:
        lines += [f"================dev[{device['device']}]================", device["name"]]
        lines += fields(device["report"], len(device["iterations"]))
    if len(run["devices"]) > 1:
        lines.append("================sum================")
        lines += fields(run["sum"], sum(len(device["iterations"]) for device in run["devices"]))
    return "\n".join(lines) + "\n"


def fields(values: dict[str, float], iterations: int) -> list[str]:
    return [f"Iterations = {iterations}", *(f"{name} = {value:.6f}" for name, value in values.items())]
