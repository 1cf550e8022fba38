"""Put small mistakes into the product, one at a time, and see whether the tests catch them.

    pip install -r requirement-mutate.txt
    python test/mutate.py                                       # 20 mistakes in each file of the core: hours
    python test/mutate.py common/training/loop.py --limit=0     # every mistake in a file
    python test/mutate.py common/training/loop.py --again       # after new tests: what survived, once more

Stopped, it goes on where it was; a file that has changed since begins anew. cosmic-ray makes the mistakes in a copy of
the repository, in test/output/mutation. pytest-cov says once which tests run which lines; a mistake meets those of its
line, out of the files of tests that are nearest by imports. A line that runs at import or in another process meets
these files whole. The tests run in a fork of this process, which has imported the large libraries already. What
survives is shown as a table and as diffs: a hole in the tests, or a mistake that changes nothing. Endless computing is
caught by a limit of processor time, which a busy machine does not change; what waits without end runs into a limit of
real time, which can be the machine's fault and has a column of its own.
"""

import argparse
import ast
import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as conftest.py does; and a fork beside threads may hang

import hypothesis  # noqa: F401 - for the forks, as the next four
import librosa.feature  # noqa: F401
import pytest
import scipy.signal  # noqa: F401
import torch.utils.data  # noqa: F401
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult
from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "test/output/mutation"
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
MOST = 60
"Tests for a line."
VERDICTS = ("caught", "timeout", "survived")
PACKAGES = ("common", "waveglow", "tacotron2", "tools")
STARTS_PROGRAMS = re.compile(r"subprocess|run_script|run_infer")
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
        default=20,
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


def tests_of(name: str, nearest: int) -> list[str]:
    """The files of test/unit that are nearest to it by imports; among equals those that start no programs, then those
    that import the least."""
    sources = [path.relative_to(ROOT) for top in ("common", "waveglow", "tacotron2", "tools", "test/unit")
               for path in sorted((ROOT / top).rglob("*.py")) if path.name != "conftest.py"]  # fmt: skip
    names = {module_name(path) for path in sources}
    imports = {path: imported(ROOT / path) & names for path in sources}
    importers = {each: [path for path in sources if each in imports[path]] for each in names}
    found: list[Path] = []
    seen, ring = set(), [Path(name)]
    starts = {path: len(STARTS_PROGRAMS.findall((ROOT / path).read_text())) for path in sources}
    while ring and len(found) < nearest:
        around = {each for path in ring for each in importers[module_name(path)]} - seen
        seen |= around
        ring = sorted(around, key=lambda path: (starts[path] > 0, len(imports[path]), path))
        found += [path for path in ring if path.name.startswith("test_")]
    return [str(path) for path in sorted(found[:nearest], key=starts.__getitem__)]


@cache
def imported(path: Path) -> set[str]:
    """The modules that a file imports, or starts by their name; ``from a import b`` may mean a or a.b."""
    text = path.read_text()
    found = set(re.findall(r'"((?:waveglow|tacotron2|common|tools)(?:\.\w+)+)"', text))
    found |= {each.replace("/", ".") for each in re.findall(r"\b((?:tools|test)(?:/\w+)+)\.py\b", text)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module_name(path: Path) -> str:
    """As it is imported; the helpers of the tests stand alone."""
    parts = path.with_suffix("").parts
    return parts[-1] if parts[0] == "test" else ".".join(parts).removesuffix(".__init__")


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


def digest(name: str) -> str:
    """Of what is in the file."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:8]


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
    """Make the mistakes that have not been made yet."""
    with use_db(session) as database:
        pending = sorted(database.pending_work_items, key=place)
        if not pending:
            return
        known = {test: lines for test in tests_of(name, nearest) if (lines := lines_of(test, name))}
        limit = 30 + int(2 * sum(lines.seconds for lines in known.values()))
        for item in pending:
            tests = tests_of_lines(name, item.mutations[0].start_pos[0], known.values()) or list(known)
            database.set_result(item.job_id, attempt(item.mutations[0], tests, limit))


def attempt(mutation: MutationSpec, tests: list[str], limit: int) -> WorkResult:
    """Run the tests with a mistake in the code, for so many seconds of a processor."""
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


def fork(arguments: list[str], cpu: int, seconds: float) -> tuple[int, str]:
    """Run pytest in a fork: exit code and output. It may take so many seconds of a processor, and in real time."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "output"), "w+") as output:
        if not (child := os.fork()):
            code = 1
            try:
                os.setsid()
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
                sys.dont_write_bytecode = True  # of mistakes
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                code = int(pytest.main(["--timeout=0", f"--basetemp={folder}/tests", *arguments]))
            finally:
                sys.stdout.flush()
                os._exit(code)
        end = time.monotonic() + seconds
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # the processes that tests have left behind, too
        if not ended[0]:
            os.waitpid(child, 0)
            return 1, "timeout"
        output.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), output.read()


class Lines(NamedTuple):
    """Which lines the tests of a file run."""

    coverage: str
    "File with coverage's data."
    seconds: float
    "Of a processor."
    files: dict[str, str]
    "The product's files as they were then: name and digest."


def lines_of(test: str, name: str) -> Lines | None:
    """What the tests of a file run in a file of the product as it is now; None if they fail without a mistake."""
    path = FOLDER / f"lines/{Path(test).stem}.{digest(test)}"
    record, log = Path(f"{path}.json"), Path(f"{path}.log")
    if record.exists():
        known = Lines(**json.loads(record.read_text()))
        if known.files.get(name) == digest(name):
            return known
    product = [str(each) for top in PACKAGES for each in sorted(Path(top).rglob("*.py"))]
    path.parent.mkdir(exist_ok=True)
    os.environ["COVERAGE_FILE"] = f"{path}.coverage"
    packages = [f"--cov={package}" for package in PACKAGES]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, output = fork([test, *packages, "--cov-context=test", "--cov-report=", "--durations=10"], 1800, 7200)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    log.write_text(output)
    if code:
        print(f"left out: {test} fails without a mistake, see {log}", flush=True)
        return None
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = Lines(f"{path}.coverage", seconds, {each: digest(each) for each in product})
    record.write_text(json.dumps(lines._asdict()))
    return lines


def tests_of_lines(name: str, number: int, known: Iterable[Lines]) -> list[str]:
    """The tests that run the statement of a line: of each file in turn that which runs the fewest lines of ``name``."""
    wanted = statement(name, number)
    of_files = []
    for each in known:
        data = CoverageData(basename=each.coverage)
        data.read()
        runs, found = Counter(), set()
        for line, contexts in data.contexts_by_lineno(str(Path(name).resolve())).items():
            tests = {context.rpartition("|")[0] for context in contexts} - {""}
            runs.update(tests)
            found |= tests if line in wanted else set()
        of_files.append(sorted(found, key=lambda test: (runs[test], test)))
    return [test for each in zip_longest(*of_files) for test in each if test][:MOST]


def statement(name: str, number: int) -> range:
    """The lines of the innermost statement around a line, without its body."""
    found = range(number, number + 1)
    for node in ast.walk(ast.parse(Path(name).read_text())):
        if isinstance(node, ast.stmt) and node.lineno <= number <= node.end_lineno:
            end = node.body[0].lineno - 1 if getattr(node, "body", None) else node.end_lineno
            if number <= end:
                found = range(node.lineno, end + 1)
    return found


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
