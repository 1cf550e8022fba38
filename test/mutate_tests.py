"""Which tests meet a mistake that test/mutate.py makes: the files nearest by imports, in them those that run its line.

They run in a fork of this process, which has imported the large libraries already.
"""

import ast
import contextlib
import ctypes
import hashlib
import json
import os
import re
import resource
import signal
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
from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "test/output/mutation"
MOST = 60
"Tests for a line."
SECONDS_FOR_A_TEST = 200
"In real time: what waits without end need not wait for the end of all."
PACKAGES = ("common", "waveglow", "tacotron2", "tools")
PR_SET_PDEATHSIG = 1
"Of Linux: what a process gets when its parent has ended."
STARTS_PROGRAMS = re.compile(r"subprocess|run_script|run_infer")


def tests_of(name: str, nearest: int) -> list[str]:
    """The files of test/unit that are nearest to it by imports; among equals those that start no programs, then those
    that import the least."""
    sources = [path for top in (*PACKAGES, "test/unit")
               for path in sorted(Path(top).rglob("*.py")) if path.name != "conftest.py"]  # fmt: skip
    names = {module_name(path) for path in sources}
    imports = {path: imported(path) & names for path in sources}
    importers = {each: [path for path in sources if each in imports[path]] for each in names}
    found: list[Path] = []
    seen, ring = set(), [Path(name)]
    starts = {path: len(STARTS_PROGRAMS.findall(path.read_text())) for path in sources}
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


def digest(name: str) -> str:
    """Of what is in the file."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:8]


def fork(arguments: list[str], cpu: int, seconds: float) -> tuple[int, str]:
    """Run pytest in a fork: exit code and output. It may take so many seconds of a processor, and in real time."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "output"), "w+") as output:
        if not (child := os.fork()):
            code = 1
            try:
                # It would keep the lock of a run that is over.
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                os.setsid()
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
                sys.dont_write_bytecode = True  # of mistakes
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                code = int(pytest.main([f"--timeout={SECONDS_FOR_A_TEST}", f"--basetemp={folder}/tests", *arguments]))
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


@cache
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
        if code != pytest.ExitCode.NO_TESTS_COLLECTED:  # of slow tests alone
            print(f"left out: {test} fails without a mistake, see {log}", flush=True)
        return None
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = Lines(f"{path}.coverage", seconds, {each: digest(each) for each in product})
    record.write_text(json.dumps(lines._asdict()))
    return lines


def tests_of_lines(name: str, number: int, known: Iterable[Lines]) -> list[str]:
    """The tests that run the statement of a line: of each file in turn that which runs the fewest lines of ``name``.

    None for what runs at import, which whatever test is the first does.
    """
    if not is_in_a_function(name, number):
        return []
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


def is_in_a_function(name: str, number: int) -> bool:
    """Whether a line is in the body of one."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(Path(name).read_text())) if isinstance(node, functions))
    return any(node.body[0].lineno <= number <= node.end_lineno for node in nodes)
