"""Processes that hold folders, and have children that outlive them."""

import os
import subprocess
import sys

from conftest import ROOT

UNTIL_THE_END, _ = os.pipe()
"Can be read when the tests' process has ended."

HOLDER = """
import os, sys
from common.folder_lock import BusyError, sole_writer
try:
    with sole_writer(*sys.argv[2:]):
        if os.fork() == 0:  # as a loader process, which outlives its parent
            sys.stdin.close()
            os.closerange(0, 3)
            os.read(int(sys.argv[1]), 1)
            os._exit(0)
        print("held", flush=True)
        sys.stdin.readline()
except BusyError as error:
    print(error)
"""


def start_holder(*folders):
    """A process that holds the folders until it is killed or its standard input ends; and its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(UNTIL_THE_END), *map(str, folders)], pass_fds=[UNTIL_THE_END],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def end_holder(process, how):
    if how:
        process.send_signal(how)
    process.stdin.close()
    process.wait(timeout=20)
    process.stdout.close()
