"""Put small mistakes into the product, one at a time, and see whether the tests catch them.

    pip install -r requirement-mutate.txt
    python test/mutate.py                                       # 4 mistakes in each file of the core: an hour or two
    python test/mutate.py common/training/loop.py --limit=0     # every mistake in a file
    python test/mutate.py common/training/loop.py --again       # after new tests: what survived, once more

Stopped, it goes on where it was; a file that has changed since begins anew. cosmic-ray makes the mistakes in a copy of
the repository, in test/output/mutation. pytest-cov says once which tests run which lines; a mistake meets those of its
line, out of the files of tests that are nearest by imports, and if it survives, out of the next ones. A line that runs
at import or in another process meets these files whole. The tests run in a fork of this process, which has imported the
large libraries already. What survives is shown as a table and as diffs: a hole in the tests, or a mistake that changes
nothing. Endless computing is caught by a limit of processor time, which a busy machine does not change; what waits
without end runs into a limit of real time, which can be the machine's fault and has a column of its own.
"""

import argparse
import difflib
import fcntl
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult
from mutate_tests import FOLDER, ROOT, Lines, digest, fork, lines_of, tests_of, tests_of_lines

CORE = (
    "waveglow/*.py", "tacotron2/*.py", "common/*.py", "common/training/*.py", "common/checkpoints/*.py",
    "common/layers/*.py", "common/evaluation/*.py", "tools/tbe/*.py", "tools/deploy/*.py",
    "tools/deploy/export_model/*.py",
)  # fmt: skip
LIKELY = re.compile(
    r"Binary\w+_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|BitOr_BitAnd|BitAnd_BitOr)$"
    r"|Comparison\w+_(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is)$"
    r"|Unary\w+_USub_(UAdd|Nothing)$"
    r"|AddNot|Number|True|False|AndWithOr|OrWithAnd|ZeroIteration|Decorator|Continue|Break"
)
"Operators whose mistakes people make; a tensor shifted by bits is caught by any test."
FARTHER = 5
"Times as many files of tests for what survives."
VERDICTS = ("caught", "timeout", "survived")
OUT_OF_TIME = re.compile(r"^timeout$|TimeoutExpired|Timeout \(>")
"What ``fork``, subprocess and pytest-timeout say at the end of a real time."


def main() -> None:
    args = read_arguments()
    files = args.files or sorted(str(path.relative_to(ROOT)) for each in CORE for path in ROOT.glob(each))
    FOLDER.mkdir(parents=True, exist_ok=True)
    lock = (FOLDER / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"error: another run is at work in {FOLDER}")
    os.chdir(copy_repository())
    table = [f"| file | mistakes | {' | '.join(VERDICTS)} |", "|---|---|" + "---|" * len(VERDICTS)]
    verdicts, diffs = [], []
    for name in files:
        session = make_session(name, args.limit, args.again)
        run(name, session, args.nearest)
        found = [(verdict(result), result.diff) for _, result in results(session)]
        if found:
            table.append(row(f"`{name}`", [each for each, _ in found]))
            print(table[-1], flush=True)
        verdicts += [each for each, _ in found]
        diffs += [f"{each}:\n{diff}" for each, diff in found if each != "caught"]
    print("\n".join([*table, row("all", verdicts), "", *diffs]))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="of the product, as seen from its root (default: the core)"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=4,
        metavar="N",
        help="mistakes in a file, drawn at random; 0 = all (default: %(default)s)",
    )
    parser.add_argument(
        "--nearest",
        type=int,
        default=10,
        metavar="N",
        help="files of tests for a file of the product (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="make anew what survived or ended by timeout")
    args = parser.parse_args()
    if missing := [name for name in args.files if not (ROOT / name).is_file()]:
        parser.error(f"no file {', '.join(missing)} in {ROOT}")
    return args


def copy_repository() -> Path:
    """A copy of what git knows, in which a mistake does no harm."""
    tree = FOLDER / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in names.split("\0"):
        if not (ROOT / name).is_file():
            continue  # deleted, and git does not know yet
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    return tree


def make_session(name: str, limit: int, again: bool) -> Path:
    """The mistakes in a file as it is now, with what is known of them."""
    session = FOLDER / f"{name.replace('/', '.')}.{digest(name)}.sqlite"
    with use_db(session) as database:
        if not database.num_work_items:
            init([Path(name)], database, {})
    choose(session, name, limit)
    if again:
        forget(session, [job for job, result in results(session) if verdict(result) != "caught"])
    return session


def choose(session: Path, name: str, limit: int) -> None:
    """Leave out the mistakes that nobody makes, and all but ``limit`` of the others; fewer are a part of more."""
    with use_db(session) as database:
        items, known = sorted(database.work_items, key=place), dict(database.results)
        lines = Path(name).read_text().splitlines()
        likely = [item.job_id for item in items if is_likely(item, lines)]
        random.Random(name).shuffle(likely)
        chosen = likely[: limit or None]
        others = {item.job_id for item in items} - known.keys() - set(chosen)
        database.set_multiple_results(others, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    forget(session, [job for job in chosen if job in known and known[job].worker_outcome == WorkerOutcome.SKIPPED])


def is_likely(item: WorkItem, lines: list[str]) -> bool:
    """A dataclass that is not frozen any more computes the same."""
    mutation = item.mutations[0]
    return bool(LIKELY.search(mutation.operator_name)) and "(frozen=True)" not in lines[mutation.start_pos[0] - 1]


def place(item: WorkItem) -> tuple:
    """Where in the file a mistake is, and what kind; its number is another one each time."""
    mutation = item.mutations[0]
    return mutation.start_pos, mutation.operator_name, mutation.occurrence


def forget(session: Path, jobs: list[str]) -> None:
    with sqlite3.connect(session) as database:
        database.executemany("DELETE FROM work_results WHERE job_id = ?", [(job,) for job in jobs])


def run(name: str, session: Path, nearest: int) -> None:
    """Make the mistakes that have not been made yet; what survives the nearest tests meets those farther off, too."""
    with use_db(session) as database:
        pending = sorted(database.pending_work_items, key=place)
        near = tests_of(name, nearest)
        far = [test for test in tests_of(name, FARTHER * nearest) if test not in near]
        for item in pending:
            mutation = item.mutations[0]
            known = what_runs(near, name)
            tests = tests_of_lines(name, mutation.start_pos[0], known.values())
            result = attempt(mutation, tests or list(known), known)
            if result.test_outcome == TestOutcome.SURVIVED:
                known = what_runs(far, name)
                others = tests_of_lines(name, mutation.start_pos[0], known.values()) if tests else list(known)
                result = attempt(mutation, others, known) if others else result
            database.set_result(item.job_id, result)


def what_runs(tests: list[str], name: str) -> dict[str, Lines]:
    """What the files of tests run in ``name``, without those that fail before there is a mistake."""
    return {test: lines for test in tests if (lines := lines_of(test, name))}


def attempt(mutation: MutationSpec, tests: list[str], known: dict[str, Lines]) -> WorkResult:
    """Run these tests out of the known files with a mistake in the code."""
    limit = 30 + int(2 * sum(lines.seconds for lines in known.values()))
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    with use_mutation(mutation.module_path, operator, mutation.occurrence) as (before, after):
        if after is None:
            return WorkResult(worker_outcome=WorkerOutcome.NO_TEST)
        code, output = fork(["-x", *tests], limit, 10 * limit)
    diff = "\n".join(
        difflib.unified_diff(before.split("\n"), after.split("\n"), str(mutation.module_path), lineterm="")
    )
    outcome = TestOutcome.KILLED if code else TestOutcome.SURVIVED
    return WorkResult(worker_outcome=WorkerOutcome.NORMAL, output=output, test_outcome=outcome, diff=diff)


def results(session: Path) -> list[tuple[str, WorkResult]]:
    with use_db(session) as database:
        return [each for each in database.results if each[1].worker_outcome != WorkerOutcome.SKIPPED]


def verdict(result: WorkResult) -> str:
    if result.test_outcome == TestOutcome.SURVIVED:
        return "survived"
    return "timeout" if OUT_OF_TIME.search(result.output or "") else "caught"


def row(name: str, found: list[str]) -> str:
    return f"| {name} | {len(found)} | {' | '.join(str(found.count(each)) for each in VERDICTS)} |"


if __name__ == "__main__":
    main()
