"""Put small mistakes into the product, one at a time, and see whether the tests catch them.

    pip install -r requirement-mutate.txt
    python test/mutate.py                                       # 20 mistakes in each file of the core: an hour or more
    python test/mutate.py common/training/loop.py --limit=0     # every mistake in a file

Stopped, it goes on where it was. cosmic-ray makes the mistakes in a copy of the repository, in test/output/mutation.
The tests of a file are those files of test/unit that name its module, those that start programs last. What survives
is shown as a table and as diffs: a hole in the tests, or a mistake that changes nothing.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

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
LONGEST = 300
"Seconds for the tests of a file; a mistake that makes them hang is caught."


def main() -> None:
    args = read_arguments()
    files = args.files or sorted(str(path.relative_to(ROOT)) for each in CORE for path in ROOT.glob(each))
    tree = copy_repository()
    table = ["| file | mistakes | caught |", "|---|---|---|"]
    survivors = []
    for name in files:
        tests = tests_of(name)
        if not tests:
            print(f"{name}: no test names its module", flush=True)
            continue
        session = FOLDER / f"{name.replace('/', '.')}.sqlite"
        run(tree, name, tests, session, args.limit)
        tried, survived = outcome(session)
        table.append(f"| `{name}` | {tried} | {tried - len(survived)} |")
        survivors += survived
        print(table[-1], flush=True)
    print("\n".join([*table, "", *survivors]))


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
    return parser.parse_args()


def copy_repository() -> Path:
    """A copy of what git knows, in which a mistake does no harm."""
    tree = FOLDER / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    return tree


def tests_of(name: str) -> list[str]:
    """The files of test/unit that name the module, those that start programs last."""
    package, _, module = name.removesuffix(".py").replace("/", ".").rpartition(".")
    mention = re.compile(rf"\b{re.escape(f'{package}.{module}')}\b|\bfrom {re.escape(package)} import .*\b{module}\b")
    texts = {path: path.read_text() for path in sorted((ROOT / "test/unit").glob("test_*.py"))}
    found = [path for path, text in texts.items() if mention.search(text)]
    found.sort(key=lambda path: len(re.findall(r"subprocess|run_script|run_infer", texts[path])))
    return [str(path.relative_to(ROOT)) for path in found]


def run(tree: Path, name: str, tests: list[str], session: Path, limit: int) -> None:
    """Make the mistakes that have not been made yet."""
    command = f"{sys.executable} -m pytest -x -q --timeout={LONGEST // 2} {' '.join(tests)}"
    config = session.with_suffix(".toml")
    config.write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(name)}\ntimeout = {float(LONGEST)}\nexcluded-modules = []\n"
        f"test-command = {json.dumps(command)}\n[cosmic-ray.distributor]\nname = 'local'\n"
    )
    program = [sys.executable, "-m", "cosmic_ray.cli"]
    if not session.exists():
        subprocess.run([*program, "init", config, session], cwd=tree, check=True)
        choose(session, name, limit)
    subprocess.run([*program, "exec", config, session], cwd=tree, check=True)


def choose(session: Path, name: str, limit: int) -> None:
    """Leave out the mistakes that nobody makes, and all but ``limit`` of the others."""
    with use_db(session, WorkDB.Mode.open) as database:
        items = list(database.work_items)
        likely = [item.job_id for item in sorted(items, key=place) if LIKELY.search(item.mutations[0].operator_name)]
        if limit:
            likely = random.Random(name).sample(likely, min(limit, len(likely)))
        for item in items:
            if item.job_id not in likely:
                database.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def place(item: WorkItem) -> tuple:
    """Where in the file a mistake is, and what kind; its number is another one each time."""
    mutation = item.mutations[0]
    return mutation.start_pos, mutation.operator_name, mutation.occurrence


def outcome(session: Path) -> tuple[int, list[str]]:
    """How many mistakes were made, and the diffs of those that the tests let pass."""
    with use_db(session, WorkDB.Mode.open) as database:
        results = [result for _, result in database.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    return len(results), [result.diff for result in results if result.test_outcome == TestOutcome.SURVIVED]


if __name__ == "__main__":
    main()
