"""Attack the programs for as long as asked, and show what they made of it.

    python test/attack.py --minutes=60
    python test/attack.py --kills=100 --files=no        # the kills alone
    python test/attack.py --kills=5 --phases=checkpoint

Kills: a program is killed (SIGKILL) at a random moment of a phase of its work, started again, perhaps killed again, and
then left to come to its end, which must be that of a run which nobody disturbed. Files: the property tests of hostile
and damaged input, again and again with other random numbers. A table at the end; exit code 0 if all held, else 1.
"""

import argparse
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

from attack_phases import PATHS, PRELOADED, ROOT, Phase, last_line, make_phases, run_whole, started


def main() -> None:
    args = read_arguments()
    # Such small models need one thread; the warnings are of semaphores left.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": PATHS}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    end = time.monotonic() + 60 * args.minutes
    end_of_kills = end - 30 * args.minutes * (args.files == "yes")
    rng = random.Random(args.seed)
    table: list[tuple[str, int, int]] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        phases = make_phases(context, Path(temporary), args.phases)
        kills = Counter[str]()
        while phases and (sum(kills.values()) < args.kills if args.kills else time.monotonic() < end_of_kills):
            phase = min(phases, key=lambda each: kills[each.name])
            folder = Path(temporary, "killed", phase.name)
            for said, counts in attacked(context, phase, folder, rng):
                kills[phase.name] += counts
                print(f"{phase.name}: {said}", flush=True)
                if said.startswith("WRONG"):
                    failures.append(f"{phase.name}: {said}")
            shutil.rmtree(folder, ignore_errors=True)
        table += [
            (f"SIGKILL, {name}", count, sum(f.startswith(name) for f in failures)) for name, count in kills.items()
        ]
    if args.files == "yes":
        table += hostile_files(max(end - time.monotonic(), 0) if args.minutes else 0, args.seed)
    print("\n| attack | tried | wrong |\n|---|---|---|")
    print("\n".join(f"| {name} | {tried} | {wrong} |" for name, tried, wrong in table), *failures, sep="\n")
    sys.exit(any(wrong for _, _, wrong in table))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=0, help="in all; half of it for kills, unless --kills counts them")
    add("--kills", type=int, default=0, metavar="N", help="so many (without --minutes: 100)")
    add(
        "--phases",
        default="",
        metavar="NAME,NAME",
        help="some of: cache, checkpoint, evaluation, page, engines, preparing",
    )
    add("--files", default="yes", choices=["yes", "no"], help="whether to try hostile files, too")
    add("--seed", type=int, default=0, help="of moments and files")
    args = parser.parse_args()
    if not args.minutes and not args.kills:
        args.kills = 100
    return args


def attacked(context: BaseContext, phase: Phase, folder: Path, rng: random.Random) -> Iterator[tuple[str, int]]:
    """Kill one to three times, then let it end: what is to be said, and whether that was a kill."""
    for _ in range(rng.randint(1, 3)):
        process = started(context, phase, folder)
        while process.is_alive() and not phase.has_begun(folder):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, phase.seconds))
        was_alive = process.is_alive()
        process.kill()
        process.join()
        if not was_alive and process.exitcode:
            yield f"WRONG: it ended with {process.exitcode} by itself: {last_line(folder)}", 0
            return
        try:
            phase.check(folder)
        except Exception as error:
            yield f"WRONG: after a kill {error}", 1
            return
        left = len(list(folder.rglob(".*.part")))
        yield (f"killed{f', {left} half written' if left else ''}" if was_alive else "it had ended before"), was_alive
    code = run_whole(context, phase, folder)
    if code:
        yield f"WRONG: started again it ended with {code}: {last_line(folder)}", 0
        return
    result = phase.result(folder)
    differ = [name for name in phase.whole.keys() | result.keys() if phase.whole.get(name) != result.get(name)]
    left = [path.name for path in folder.rglob(".*.part")]
    if differ or left:
        yield f"WRONG: not as undisturbed: {sorted(differ)[:5]}; half written: {left[:5]}", 0
    else:
        yield "came to the end of an undisturbed one", 0


def hostile_files(seconds: float, seed: int) -> list[tuple[str, int, int]]:
    """Rounds of the property tests, one at least; (test, rounds, rounds in which it failed)."""
    tests = [path for path in sorted((ROOT / "test/unit").glob("test_*.py")) if "from hypothesis" in path.read_text()]
    tried, wrong = Counter[str](), Counter[str]()
    end, rounds = time.monotonic() + seconds, 0
    while rounds == 0 or time.monotonic() < end:
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", f"--hypothesis-seed={seed + rounds}"]
        with tempfile.TemporaryDirectory() as folder:  # other runs of pytest remove old ones of pytest's own
            command += [f"--basetemp={folder}/tests", *map(str, tests)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+?/(test_\w+\.py)", done.stdout, re.MULTILINE):
            tried[name] += 1
            wrong[name] += outcome != "PASSED"
        rounds += 1
        print(f"round {rounds} of hostile files: {done.stdout.strip().splitlines()[-1]}", flush=True)
        if done.returncode:
            print(done.stdout, flush=True)
    return [(f"{name}, {rounds} rounds", tried[name], wrong[name]) for name in tried]


if __name__ == "__main__":
    main()
