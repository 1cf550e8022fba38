"""The latency report, in the words of Cambricon's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PERCENTS = (50, 90, 95, 99, 100)
FRAME_RATE, SAMPLE_RATE = "tacotron2_items_per_sec average", "Throughput average (samples/sec)"
"The fields that are summed over several devices."


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


@dataclass(frozen=True)
class Summary:
    """What a report says of the iterations of one device: means, in seconds unless said otherwise."""

    iterations: int
    preprocessing: float
    mels: float
    encoder: float
    decoder: float
    postnet: float
    latency: float
    std: float
    "Standard deviation of the latencies, dividing by n."
    percentiles: dict[int, float]
    "Percent -> the smallest latency that so many percent of all do not exceed."
    frame_rate: float
    "Mel frames per second, of all clips of a batch together."
    sample_rate: float
    "Samples per second; 0 without WaveGlow, as what follows."
    postprocessing: float
    waveglow: float

    def titled(self) -> dict[str, float]:
        """The fields under Cambricon's titles."""
        report = {
            "Preprocessing average (seconds)": self.preprocessing,
            "Number of mels per audio average": self.mels,
            "Encoder latency average (seconds)": self.encoder,
            "Decoder latency average (seconds)": self.decoder,
            "Postnet latency average (seconds)": self.postnet,
            "Latency average (seconds)": self.latency,
            "Latency std (seconds)": self.std,
            **{f"Latency cl {percent} (seconds)": value for percent, value in self.percentiles.items()},
            FRAME_RATE: self.frame_rate,
        }
        if self.sample_rate:
            report |= {
                SAMPLE_RATE: self.sample_rate,
                "Postprocessing average (seconds)": self.postprocessing,
                "Waveglow latency average (seconds)": self.waveglow,
            }
        return report


def summarize(iterations: Sequence[Iteration]) -> Summary:
    """The summary of at least one iteration."""
    mean = lambda name: float(np.mean([getattr(each, name) for each in iterations]))  # noqa: E731
    latencies = sorted(each.latency for each in iterations)
    return Summary(
        iterations=len(iterations),
        **{name: mean(name) for name in ("preprocessing", "mels", "encoder", "decoder", "postnet", "latency")},
        std=float(np.std(latencies)),
        percentiles={percent: percentile(latencies, percent) for percent in PERCENTS},
        frame_rate=float(np.mean([each.batch * each.mels / each.tacotron2 for each in iterations])),
        sample_rate=float(np.mean([each.samples / each.latency for each in iterations])),
        postprocessing=mean("postprocessing"),
        waveglow=mean("waveglow"),
    )


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed."""
    return ascending[max(0, -(-percent * len(ascending) // 100) - 1)]


@dataclass
class DeviceResult:
    """The iterations of one device."""

    device_name: str
    iterations: list[Iteration]


@dataclass
class Run:
    """A measurement of engines with one batch size, on one device or several."""

    engine: str
    quant_mode: str
    batch: int
    input_length: int | None
    "Characters; None where a text was spoken."
    weights: dict[str, str]
    "Model -> its checkpoint."
    cost: dict[str, float]
    "As ``Contents.cost``."
    devices: dict[int, DeviceResult]

    def __post_init__(self) -> None:
        self.summaries = {device: summarize(result.iterations) for device, result in self.devices.items()}

    @property
    def frame_rate(self) -> float:
        """That of all devices."""
        return sum(each.frame_rate for each in self.summaries.values())

    @property
    def sample_rate(self) -> float:
        """That of all devices; 0 without WaveGlow."""
        return sum(each.sample_rate for each in self.summaries.values())

    def rates(self) -> dict[str, float]:
        """The rates that there are, under their titles."""
        return {FRAME_RATE: self.frame_rate} | ({SAMPLE_RATE: self.sample_rate} if self.sample_rate else {})

    def as_json(self) -> dict[str, Any]:
        """For each device the fields and every iteration, and the sum of all devices."""
        devices = [
            {
                "device": number,
                "name": result.device_name,
                "report": self.summaries[number].titled(),
                "iterations": [asdict(each) for each in result.iterations],
            }
            for number, result in self.devices.items()
        ]
        return asdict(self) | {"devices": devices, "sum": self.rates()}

    def as_text(self) -> str:
        """The report, in the layout of Cambricon's."""
        length = f"{self.input_length} characters" if self.input_length else "a text"
        lines = [f"{self.engine}, {self.quant_mode}, batch {self.batch}, {length}"]
        lines += [f"{model}: {source}" for model, source in self.weights.items()]
        for number, summary in self.summaries.items():
            lines += [f"================dev[{number}]================", self.devices[number].device_name]
            lines += fields(summary.titled(), summary.iterations)
        if len(self.devices) > 1:
            lines.append("================sum================")
            lines += fields(self.rates(), sum(each.iterations for each in self.summaries.values()))
        return "\n".join(lines) + "\n"


def fields(values: dict[str, float], iterations: int) -> list[str]:
    return [f"Iterations = {iterations}", *(f"{name} = {value:.6f}" for name, value in values.items())]
