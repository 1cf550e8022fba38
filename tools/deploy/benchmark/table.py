"""The benchmark's measurements as a table and as a plot."""

from matplotlib.figure import Figure

from tools.deploy.checkpoints import RANDOM
from tools.deploy.infer_python.latency import Run

COLUMNS = (
    "model", "input length", "quant mode", "batch", "mel frames/s", "samples/s", "latency (s)", "cl 95 (s)",
    "Tacotron2's mel L1", "WaveGlow's mel L1", "device",
)  # fmt: skip
NOTE = """\
mel frames/s: Tacotron2, all clips of a batch together; samples/s: Tacotron2 and WaveGlow; both of all
devices. Latency: of a batch, from ids to audio. mel L1: distance of the mode's log-mel spectrograms from those
of the exported graphs; WaveGlow's are of its audio.
"""


def table(runs: list[Run], failed: dict[str, str]) -> str:
    """The table as Markdown; ``failed``: quant mode -> why there is no measurement of it."""
    rows: list[list[str]] = [list(COLUMNS), ["---"] * len(COLUMNS), *map(row, runs)]
    rows += [["-", "-", mode, *["-"] * (len(COLUMNS) - 4), why.replace("|", "/")] for mode, why in failed.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + f"\n\n{NOTE}"


def row(run: Run) -> list[str]:
    summaries, name = run.summaries.values(), next(iter(run.devices.values())).device_name
    random = f" ({RANDOM})" if RANDOM in run.weights.values() else ""
    return [
        f"{'Tacotron2 + WaveGlow' if run.sample_rate else 'Tacotron2'}{random}",
        str(run.input_length),
        run.quant_mode,
        str(run.batch),
        f"{run.frame_rate:,.0f}",
        f"{run.sample_rate:,.0f}" if run.sample_rate else "-",
        f"{max(each.latency for each in summaries):.3f}",
        f"{max(each.percentiles[95] for each in summaries):.3f}",
        *(f"{run.cost[kind]:.2g}" if run.cost else "-" for kind in ("tacotron2", "waveglow")),
        name if len(run.devices) == 1 else f"{len(run.devices)} times {name}",
    ]


def plot(runs: list[Run]) -> Figure:
    """Rates over batches, a line for each mode."""
    rates = {"Tacotron2: mel frames/s": lambda run: run.frame_rate}
    if all(run.sample_rate for run in runs):
        rates["Tacotron2 + WaveGlow: samples/s"] = lambda run: run.sample_rate
    figure = Figure(figsize=(4.5 * len(rates), 3.2), layout="constrained")
    for axis, (title, rate) in zip(figure.subplots(ncols=len(rates), squeeze=False)[0], rates.items()):
        for mode in dict.fromkeys(run.quant_mode for run in runs):
            points = [(run.batch, rate(run)) for run in runs if run.quant_mode == mode]
            axis.plot(*zip(*points), "o-", label=mode)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("batch")
        axis.set_xticks(sorted({run.batch for run in runs}))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure
