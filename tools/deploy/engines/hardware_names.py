"""Names of processors and cards, for the reports. What cannot be found out has a name without a model."""

import platform
import re
import subprocess
from pathlib import Path

LONGEST_ANSWER = 10
"Seconds to wait for the answer of a card maker's program."


def processor_name() -> str:
    """The model of the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def cuda_card_name(number: int) -> str:
    """The name by nvidia-smi."""
    answer = ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", str(number))
    return f"{answer.strip() or 'CUDA'}, card {number}"


def mlu_name(number: int) -> str:
    """The name by cnmon, as MLU370-S4."""
    found = re.search(r"Product Name\s*:\s*(\S+)", ask("cnmon", "info", "-c", str(number), "-t"))
    return f"{found[1] if found else 'MLU'}, card {number}"


def ask(*command: str) -> str:
    """A program's output; empty if there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_ANSWER, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
