"""The reports on a data set: a page, a JSON, a table of the clips, and the list of all that is wrong."""

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.figure import Figure

from common.audio import read_wav
from common.evaluation import page
from common.files import written_whole
from tools.prepare.convert import ConvertedClip, Recipe
from tools.prepare.figures import Figures
from tools.prepare.problems import Kind, Problem, printable, worst_first
from tools.prepare.sources import Item
from tools.prepare.suspicions import FEWEST, expect_seconds
from tools.prepare.texts import Sign

TEMPLATE = Path(__file__).with_name("report.html.jinja")
PROBLEMS, TABLE, JSON, PAGE = "problems.txt", "clips.csv", "report.json", "index.html"
SHOWN, PLAYED = 20, 8
"Problems of a kind on the page, and how many of them can be listened to."
BINS = 30
FIGURES = [field.name for field in fields(Figures) if field.name not in ("sha256", "fingerprint")]
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
PICTURE_NOTE = (
    "Level and peak are those of the recordings; all else is measured in the clips. Silence: share of"
    " frames without speech. Noise: that of the quietest frames. In the last picture, a clip far from the"
    " others may have the wrong text."
)


@dataclass(frozen=True)
class Report:
    """All that is to be said of a data set."""

    title: str
    recipe: Recipe
    facts: Sequence[str]
    "How the source was understood."
    items: Mapping[str, Item]
    "All that were found, by name."
    clips: Mapping[str, ConvertedClip]
    "Those that are in the data set."
    symbols: Mapping[str, int]
    signs: Mapping[str, Sign]
    problems: Sequence[Problem]

    @property
    def hours(self) -> float:
        return sum(clip.figures.seconds for clip in self.clips.values()) / 3600

    @property
    def left_out(self) -> int:
        return sum(problem.left_out for problem in self.problems)


def write_report(report: Report, folder: Path) -> None:
    """Write all four to the folder of the data set."""
    write_problems(report, folder)
    _write(folder / TABLE, table(report))
    _write(folder / JSON, json.dumps(as_json(report), indent=1) + "\n")
    write_page(report, folder)


def write_problems(report: Report, folder: Path) -> None:
    _write(folder / PROBLEMS, "".join(f"{line}\n" for line in problem_lines(report.problems)))


def _write(path: Path, content: str) -> None:
    with written_whole(path) as file:
        file.write(content.encode(errors="backslashreplace"))


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """A line for each problem, the worst first."""
    what = {True: "left out", False: "look at"}
    return [f"{what[p.left_out]}: {p.kind.value}: {p.message}" for p in worst_first(problems)]


def table(report: Report) -> str:
    """A row for each clip, the ones left out included, with what was done to it and what was measured."""
    why = {p.name: p for p in reversed(worst_first(report.problems))}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "used", "done", "recording", "from", "speaker", "text", "symbols", *FIGURES])
    for name, item in report.items.items():
        clip = report.clips.get(name)
        done = "; ".join(clip.steps) if clip else why[name].message if name in why else ""
        figures = [getattr(clip.figures, figure) for figure in FIGURES] if clip else []
        said = [printable(str(item.path)), printable(item.where), item.speaker, item.text or ""]
        writer.writerow([name, "yes" if clip else "no", done, *said, report.symbols.get(name, ""), *figures])
    return out.getvalue()


def histograms(report: Report) -> dict[str, np.ndarray]:
    """Title -> a value for each clip."""
    clips = [clip.figures for clip in report.clips.values()]
    pace = [
        report.symbols[name] / clip.figures.seconds for name, clip in report.clips.items() if name in report.symbols
    ]
    values = {
        "duration (s)": [clip.seconds for clip in clips],
        "symbols a second": pace,
        "level of the recordings (dB)": [clip.level - clip.gain for clip in clips],
        "peak of the recordings": [clip.recorded_peak for clip in clips],
        "silence (share)": [clip.silence for clip in clips],
        "digital silence (share)": [clip.digital_silence for clip in clips],
        "noise below speech (dB)": [clip.level - clip.noise_floor for clip in clips],
        "longest pause (s)": [clip.longest_pause for clip in clips],
    }
    return {title: np.array(some) for title, some in values.items() if some}


def as_json(report: Report) -> dict[str, Any]:
    counted = {title: np.histogram(values, BINS) for title, values in histograms(report).items()}
    return {
        "clips": len(report.clips),
        "hours": round(report.hours, 4),
        "left_out": report.left_out,
        "recipe": asdict(report.recipe),
        "source": list(report.facts),
        "speakers": {name: {"clips": c, "hours": round(h, 4)} for name, (c, h) in speakers(report).items()},
        "signs": {character: asdict(sign) for character, sign in report.signs.items()},
        "histograms": {
            title: {"counts": counts.tolist(), "edges": [round(float(edge), 5) for edge in edges]}
            for title, (counts, edges) in counted.items()
        },
        "problems": [
            {"kind": p.kind.name.lower(), "left_out": p.left_out, "clip": p.name, "message": p.message}
            for p in worst_first(report.problems)
        ],
        "measured": {
            name: {figure: getattr(clip.figures, figure) for figure in FIGURES} for name, clip in report.clips.items()
        },
    }


def speakers(report: Report) -> dict[str, tuple[int, float]]:
    """Clips and hours of each speaker."""
    found: dict[str, tuple[int, float]] = {}
    for name, clip in report.clips.items():
        count, hours = found.get(report.items[name].speaker, (0, 0.0))
        found[report.items[name].speaker] = count + 1, hours + clip.figures.seconds / 3600
    return dict(sorted(found.items()))


def write_page(report: Report, folder: Path) -> None:
    facts = {
        "clips": len(report.clips),
        "hours": f"{report.hours:.2f}",
        "left out": report.left_out or "",
        "source": "; ".join(report.facts),
        "made": describe(report.recipe),
    }
    page.write_page(
        folder / PAGE,
        TEMPLATE,
        title=report.title,
        facts={name: fact for name, fact in facts.items() if fact != ""},
        picture=page.as_png(draw(report)),
        pictures_note=PICTURE_NOTE,
        speakers=speakers(report),
        kinds=[_kind(kind, report, folder) for kind in Kind if any(p.kind is kind for p in report.problems)],
        signs=[
            (character, f"U+{ord(character):04X}", sign.count, sign.read_as, sign.lost)
            for character, sign in report.signs.items()
        ],
        list=PROBLEMS,
    )


def describe(recipe: Recipe) -> str:
    level = "level as it was" if recipe.level is None else f"speech at {recipe.level:g} dB"
    edges = "edges as they were" if recipe.margin is None else f"{recipe.margin:g} s of silence at the edges"
    return f"{recipe.sampling_rate} Hz, {level}, {edges}, {recipe.shortest:g} to {recipe.longest:g} s"


def _kind(kind: Kind, report: Report, folder: Path) -> dict[str, Any]:
    problems = worst_first(p for p in report.problems if p.kind is kind)
    shown = [
        {
            "message": problem.message,
            "text": (report.items[problem.name].text or "") if problem.name in report.items else "",
            "sound": as_sound(folder / "wavs" / f"{problem.name}.wav", report.recipe.sampling_rate)
            if problem.name in report.clips and place < PLAYED
            else "",
        }
        for place, problem in enumerate(problems[:SHOWN])
    ]
    return {"title": kind.value, "left_out": problems[0].left_out, "count": len(problems), "problems": shown}


def as_sound(path: Path, sampling_rate: int) -> str:
    """A clip as a data URI: small, if MP3 has its rate."""
    audio = read_wav(path, sampling_rate)
    if sampling_rate not in MP3_RATES:
        return page.as_wav(audio, sampling_rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sampling_rate, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw(report: Report) -> Figure:
    """Histograms, and the durations over the symbols."""
    values = histograms(report)
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(3, 3).flat
    for title, some in values.items():
        axis = next(axes)
        axis.hist(some, BINS)
        axis.set_title(title, fontsize=10, loc="left")
    if report.symbols:
        _draw_pace(next(axes), report)
    for axis in axes:
        axis.set_axis_off()
    return figure


def _draw_pace(axis: Any, report: Report) -> None:
    names = [name for name in report.clips if name in report.symbols]
    symbols = np.array([float(report.symbols[name]) for name in names])
    seconds = np.array([report.clips[name].figures.seconds for name in names])
    odd = {problem.name for problem in report.problems if problem.kind is Kind.MISMATCH}
    flags = np.array([name in odd for name in names], dtype=bool)
    axis.plot(symbols[~flags], seconds[~flags], ".", markersize=3)
    axis.plot(symbols[flags], seconds[flags], "x", color="tab:red")
    if len(names) >= FEWEST:
        order = symbols.argsort()
        axis.plot(symbols[order], expect_seconds(symbols, seconds)[0][order], color="grey", linewidth=1)
    axis.set_title("duration (s) over symbols", fontsize=10, loc="left")
