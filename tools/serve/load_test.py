"""Many clients at once against a running service: python -m tools.serve.load_test --help"""

import argparse
import asyncio
import itertools
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
from matplotlib.figure import Figure

from common import program
from common.files import written_whole
from common.log import open_log, progress_bar
from common.program import UserError

DESCRIPTION = """\
Measure a running service under load. Each client asks for one sentence after the other and reads the audio as it comes.
It reports requests, failures, and as percentiles over requests the seconds to the first audio and the real-time factor
(seconds for a sentence over seconds of its audio: below 1 is faster than real time); memory is the process's."""

EXAMPLES = """\
  python -m tools.serve.load_test --clients 1 8 32 --seconds 60
  python -m tools.serve.load_test --url http://127.0.0.1:9000 --clients 8 --pid 4711 --json load.json"""

SENTENCES = (
    "The people of the small town gathered in the old market square to hear what the new mayor would say.",
    "A cold wind came down from the hills that night, and nobody in the house could sleep before the morning came.",
    "She had written three long letters to her brother in the city, but not one of them was ever sent to him.",
)
"Of 20 to 22 words."
PERCENTILES = (50, 95, 99)
LONGEST_ANSWER = 120.0
"Seconds without a byte after which a request has failed."


@dataclass
class Answer:
    """One request."""

    first: float
    "Seconds to the first audio; 0 if it failed."
    factor: float
    "Seconds for it over seconds of its audio."


def main() -> None:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    add("--clients", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="default: 1 8 32")
    add("--seconds", type=float, default=60.0, help="for each number of clients (default: %(default)s)")
    add("--rate", type=int, default=22050, help="samples a second of the voice (default: %(default)s)")
    add("--pid", type=int, help="of the service, for its memory")
    add("--json", type=Path, metavar="FILE", help="for all numbers")
    add("--plot", type=Path, metavar="FILE.png", help="for a picture of them")
    args = parser.parse_args()
    if min(*args.clients, args.rate) < 1 or not 0 < args.seconds < float("inf"):
        parser.error("--clients, --seconds and --rate must be above 0")
    open_log(None, quiet=False)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    rows = [asyncio.run(measure(args, clients)) for clients in args.clients]
    print(table(rows))
    if args.json:
        with written_whole(args.json) as file:
            file.write(json.dumps(rows, indent=2).encode())
    if args.plot:
        plot(rows, args.plot)
    if any(row["failures"] for row in rows):
        raise UserError("requests failed, see the table")


async def measure(args: argparse.Namespace, clients: int) -> dict:
    """The row of so many clients. UserError if the service is not there."""
    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(base_url=args.url, timeout=LONGEST_ANSWER, limits=limits) as http:
        try:
            (await http.get("/health")).raise_for_status()
        except httpx2.HTTPError as error:
            raise UserError(f"no service answers on {args.url}: start bash tools/serve.sh ({error})") from error
        until = time.perf_counter() + args.seconds
        answers: list[Answer] = []
        with progress_bar(f"{clients} clients", round(args.seconds), initial=0) as bar:
            tasks = [asyncio.create_task(client(http, number, until, args.rate, answers)) for number in range(clients)]
            while time.perf_counter() < until:
                await asyncio.sleep(1)
                bar.update()
            await asyncio.gather(*tasks)
    return summary(clients, answers, memory_of(args.pid))


async def client(http: httpx2.AsyncClient, number: int, until: float, rate: int, answers: list[Answer]) -> None:
    """Ask again and again, at least once."""
    for turn in itertools.count(number):
        wish = {"input": SENTENCES[turn % len(SENTENCES)], "response_format": "pcm", "seed": turn}
        answers.append(await ask(http, wish, rate))
        if time.perf_counter() >= until:
            return


async def ask(http: httpx2.AsyncClient, wish: dict, rate: int) -> Answer:
    began, first, received = time.perf_counter(), 0.0, 0
    try:
        async with http.stream("POST", "/v1/audio/speech", json=wish) as response:
            response.raise_for_status()
            async for part in response.aiter_bytes():
                first = first or time.perf_counter() - began
                received += len(part)
    except httpx2.HTTPError:
        return Answer(0.0, 0.0)
    if not received:
        return Answer(0.0, 0.0)
    return Answer(first, (time.perf_counter() - began) / (received / 2 / rate))


def summary(clients: int, answers: list[Answer], memory: float) -> dict:
    """Numbers of a row, percentiles over the requests that did not fail."""
    good = [answer for answer in answers if answer.first]
    row = {"clients": clients, "requests": len(answers), "failures": len(answers) - len(good), "memory_gb": memory}
    for name in ("first", "factor"):
        values = [getattr(answer, name) for answer in good] or [float("nan")]
        row |= {f"{name}_p{p}": float(np.percentile(values, p)) for p in PERCENTILES}
    return row


def memory_of(pid: int | None) -> float:
    """GB that a process has in memory; 0 if it is not known."""
    status = Path(f"/proc/{pid}/status")
    if pid is None or not status.is_file():
        return 0.0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024 / 1e9


def table(rows: list[dict]) -> str:
    """Markdown."""
    names = [f"{what} p{p}" for what in ("first audio (s)", "real-time factor") for p in PERCENTILES]
    head = ["clients", "requests", "failures", *names, "memory (GB)"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        numbers = [f"{row[f'{name}_p{p}']:.2f}" for name in ("first", "factor") for p in PERCENTILES]
        facts = [str(row[name]) for name in ("clients", "requests", "failures")]
        lines.append([*facts, *numbers, f"{row['memory_gb']:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(rows: list[dict], path: Path) -> None:
    """Time to the first audio and real-time factor over the number of clients."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, what in ((left, "first", "seconds to the first audio"), (right, "factor", "real-time factor")):
        for percent in PERCENTILES:
            values = [row[f"{name}_p{percent}"] for row in rows]
            axes.plot([row["clients"] for row in rows], values, marker="o", label=f"p{percent}")
        axes.set(xlabel="clients", ylabel=what, ylim=(0, None))
    right.axhline(1, color="grey", linestyle="--", linewidth=1)
    left.legend()
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=110)


if __name__ == "__main__":
    program.run(main)
