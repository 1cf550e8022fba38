"""The benchmark's table and its plot."""

import statistics
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from tools.speed.measure import LOADING, NVIDIA, NVIDIA_EXAMPLES, PEAK

UNITS = {"waveglow": ("samples", 1), "tacotron2": ("frames", 1), "voice": ("samples", 1), PEAK: ("GFLOP", 1e9)}
"Units counted per second, and the multiple in which they are shown."


@dataclass
class Measurement:
    """A line of the table."""

    job: str
    implementation: str
    precision: str
    batch: int
    units: int = 0
    seconds: list[float] = field(default_factory=list)
    peak_memory: int = 0
    operations: int = 0
    "Floating-point operations of ``units``; 0 where they were not counted."

    @property
    def rate(self) -> float:
        """Units per second in the median repeat."""
        return self.units / statistics.median(self.seconds)


def table(measurements: list[Measurement]) -> str:
    """In Markdown, with the ratio to the peer of each job: NVIDIA's float32, if it was measured."""
    lines = [
        "| job | batch | by | precision | per second | spread | times NVIDIA's float32 | of peak | peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    peers = {each.job: each for each in measurements if (each.implementation, each.precision) == (NVIDIA, "float32")}
    for each in measurements:
        slowest, fastest = (each.units / seconds for seconds in (max(each.seconds), min(each.seconds)))
        unit, size = UNITS[each.job.partition("-")[0]]
        peer = peers.get(each.job)
        ratio = f"{each.rate / peer.rate:.2f}" if peer and each.implementation != LOADING else "-"
        memory = f"{each.peak_memory / 1e9:.2f} GB"
        if peer:
            memory += f" ({each.peak_memory / peer.peak_memory:.2f})"
        lines.append(
            f"| {each.job} | {each.batch or '-'} | {each.implementation} | {each.precision}"
            f" | {each.rate / size:,.0f} {unit} | {slowest / size:,.0f}-{fastest / size:,.0f}"
            f" | {ratio} | {of_peak(each, measurements)} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def of_peak(measurement: Measurement, measurements: list[Measurement]) -> str:
    """The job's operations per second, as a share of those of a large matrix product; "-" where either is not known."""
    precision = measurement.precision.partition(",")[0]
    peak = [each.rate for each in measurements if (each.job, each.precision) == (PEAK, precision)]
    needed = max(each.operations / each.units for each in measurements if each.job == measurement.job)
    if not peak or not needed or measurement.implementation == LOADING:
        return "-"
    return f"{measurement.rate * needed / peak[0]:.0%}"


def plot(measurements: list[Measurement]) -> Figure:
    """Rates of the jobs, a panel for each job and batch, with the range from the slowest to the fastest repeat."""
    jobs = [each for each in measurements if each.job != PEAK and each.implementation != LOADING]
    panels = list(dict.fromkeys((each.job, each.batch) for each in jobs)) or [(PEAK, 0)]
    rows = {panel: [each for each in jobs if (each.job, each.batch) == panel][::-1] for panel in panels}
    heights = [max(1, len(each)) for each in rows.values()]
    figure = Figure(figsize=(8, 0.7 * len(panels) + 0.28 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, ((job, batch), lines) in zip(axes, rows.items()):
        for place, each in enumerate(lines):
            slowest, fastest = (each.units / seconds for seconds in (max(each.seconds), min(each.seconds)))
            spread = [[each.rate - slowest], [fastest - each.rate]]
            colour = "tab:gray" if each.implementation in (NVIDIA, NVIDIA_EXAMPLES) else "tab:blue"
            axis.barh(place, each.rate, xerr=spread, color=colour, ecolor="black", error_kw={"linewidth": 0.8})
        names = [f"{each.implementation}, {each.precision}" for each in lines]
        axis.set_yticks(range(len(lines)), names, fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_title(f"{job}, batch {batch}: {UNITS[job.partition('-')[0]][0]} per second", fontsize=9, loc="left")
    return figure
