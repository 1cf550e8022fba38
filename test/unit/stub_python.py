"""A python that notes how the scripts of test/ call it, in the place of the programs, which take seconds to start."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT, write_programs

STUB = r"""#!/usr/bin/env bash
# -c: what scripts ask of Python itself.
if [[ $1 == -c ]]; then
    case $2 in
        *sys.prefix*) echo "$STUB_FOLDER/prefix" ;;
        *torch_npu*) [[ -n ${HAS_NPU:-} ]] ;;
        *librosa*) echo "$2" >>"$STUB_FOLDER/compiled"; [[ -z ${COMPILES_NOT:-} ]] ;;
        *version_info*) [[ -z ${IS_OLD:-} ]] ;;
        *torch*) [[ -z ${HAS_NO_TORCH:-} ]] ;;
    esac
    exit
fi
{
    printf '%s\0' "$PWD" "$@"
    printf '\1\0'
    env -0
    printf '\2\0'
} >>"$STUB_FOLDER/calls"
[[ $* != *"-m pip"* ]] || cat >"$STUB_FOLDER/packages"
eval "${DOES:-}"
"""


@dataclass
class Call:
    """One call of it."""

    folder: str
    arguments: list[str]
    environment: dict[str, str]

    @property
    def options(self) -> set[str]:
        """Those of the program: behind the last -m and the module, but for the time of the start."""
        last = len(self.arguments) - self.arguments[::-1].index("-m")
        found = self.arguments[last + 1 :]
        assert len(found) == len(set(found))
        return {each for each in found if not each.startswith("--started=")}

    @property
    def module(self) -> str:
        return self.arguments[len(self.arguments) - self.arguments[::-1].index("-m")]

    @property
    def launcher(self) -> list[str]:
        """What stands in front of the program."""
        return self.arguments[: len(self.arguments) - 1 - self.arguments[::-1].index("-m")]


class StubPython:
    """Runs scripts with the stub as the active environment's Python."""

    def __init__(self, folder: Path):
        self.folder = folder
        write_programs(folder / "bin", {"python": STUB, "python3": STUB})
        (folder / "prefix").mkdir()

    def environment(self, **changes: str | None) -> dict[str, str]:
        """Without what a launch, a terminal or CANN may have left; None takes a variable away."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND", "TORCHELASTIC"))}
        values = own | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": "x", "STUB_FOLDER": str(self.folder),
            "HOME": str(self.folder), "CONDA_PREFIX": None, "DISPLAY": None, "WAYLAND_DISPLAY": None,
            "CPU_AFFINITY_CONF": None,
        } | changes  # fmt: skip
        return {name: value for name, value in values.items() if value is not None}

    def run(self, *command: str, cwd: Path | None = None, **changes: str | None) -> subprocess.CompletedProcess:
        (self.folder / "calls").unlink(missing_ok=True)
        return subprocess.run(
            ["bash", *map(str, command)],
            cwd=cwd or self.folder, env=self.environment(**changes), capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def script(self, name: str, *options: str, **changes: str | None) -> subprocess.CompletedProcess:
        return self.run(str(ROOT / "test" / name), *options, **changes)

    @property
    def calls(self) -> list[Call]:
        path = self.folder / "calls"
        found = []
        for record in path.read_text().split("\2\0")[:-1] if path.exists() else ():
            said, _, environment = record.partition("\1\0")
            folder, *arguments = said.split("\0")[:-1]
            found.append(Call(folder, arguments, dict(each.split("=", 1) for each in environment.split("\0")[:-1])))
        return found

    @property
    def call(self) -> Call:
        """The only one."""
        (call,) = self.calls
        return call

    def packages(self) -> list[str]:
        """Those that pip was asked for last."""
        return (self.folder / "packages").read_text().splitlines()
