"""All recordings of a source converted, by several processes."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.audio import ClipError, write_wav
from common.log import with_progress
from common.processes import in_processes
from common.program import StopSignal
from tools.prepare.convert import ConvertedClip, Recipe, convert
from tools.prepare.folder import Folder
from tools.prepare.problems import Problem, of_error
from tools.prepare.sources import Item

FEW = 100
"Clips that are converted before other processes would have started."


@dataclass(frozen=True)
class Job:
    """What a process needs to know of one clip."""

    item: Item
    recipe: Recipe
    target: Path | None
    "The file to write; None: none."


def convert_all(
    items: Sequence[Item], recipe: Recipe, folder: Folder, jobs: int, dry_run: bool, stop: StopSignal
) -> tuple[dict[str, ConvertedClip], list[Problem]]:
    """The clips by their names, written to the folder unless ``dry_run``, and what is wrong with the others.

    Some are missing if ``stop`` was requested meanwhile.
    """
    known = {item.name: folder.find(item, recipe) for item in items}
    missing = [item for item in items if known[item.name] is None]
    orders = [Job(item, recipe, None if dry_run else folder.new / f"{item.name}.wav") for item in missing]
    clips, problems = {name: clip for name, clip in known.items() if clip}, []
    results = with_progress(_results(orders, jobs, stop), "converting clips", len(orders))
    for item, result in zip(missing, results):
        if isinstance(result, Problem):
            problems.append(result)
            continue
        clips[item.name] = result
        if not dry_run:
            folder.add(item, recipe, result)
    return {item.name: clips[item.name] for item in items if item.name in clips}, problems


def _results(orders: Sequence[Job], jobs: int, stop: StopSignal) -> Generator[ConvertedClip | Problem, None, None]:
    if jobs > 1 and len(orders) > FEW:
        yield from in_processes(_begin, orders, jobs, stop)
        return
    for order in orders:
        if stop.requested:
            return
        yield make_clip(order)


def _begin() -> Callable[[Job], ConvertedClip | Problem]:
    return make_clip


def make_clip(job: Job) -> ConvertedClip | Problem:
    """Convert one recording."""
    try:
        audio, clip = convert(job.item.path, job.recipe)
    except ClipError as error:
        return of_error(error, job.item.name)
    if job.target:
        write_wav(job.target, audio, job.recipe.sampling_rate)
    return clip
